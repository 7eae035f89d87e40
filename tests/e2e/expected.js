// The expected view of a task at a client, written from the contract only.

/** A document may use either name of a field. A client receives the field under both names. */
export const PAIRS = [
  ['issueNumber', 'githubIssueNumber'],
  ['issueUrl', 'githubIssueUrl'],
  ['prNumber', 'githubPrNumber'],
  ['prUrl', 'githubPrUrl'],
];
const PLAIN = ['status', 'repo', 'githubBranch', 'prTitle', 'prState', 'mergeCommitSha', 'errorMessage'];
const NAMES_A_SECRET = /token|secret|password|api_?key|authorization|credential|cookie/i;

/** The full view of a document as the official driver reads it. Absent fields are null. */
export function fullView(document, defaultOrg = null) {
  return {
    ...summary(document, defaultOrg),
    questions: plain(first(document, 'questions', 'clarificationQuestions')),
    clarificationAnswers: plain(first(document, 'clarificationAnswers')),
    events: (Array.isArray(document.events) ? document.events : []).map(timelineEntry),
  };
}

export function summary(document, defaultOrg = null) {
  const id = plain(document._id);
  const view = {
    _id: id,
    taskId: id,
    title: plain(first(document, 'title', 'llmSummary')),
    creator: plain(first(document, 'creatorName', 'createdBy')),
    createdBy: plain(first(document, 'createdBy')),
    orgId: plain(first(document, 'orgId')) ?? defaultOrg,
    isPrivate: document.isPrivate ?? false,
    createdAt: plain(first(document, 'createdAt')),
    updatedAt: plain(first(document, 'updatedAt')),
    mergedAt: plain(first(document, 'mergedAt')),
  };
  for (const name of PLAIN) view[name] = plain(first(document, name));
  for (const pair of PAIRS) for (const name of pair) view[name] = plain(first(document, ...pair));
  return view;
}

export function timelineEntry({ eventType, payload, createdAt }) {
  return { eventType, payload: redacted(plain(payload ?? {})), createdAt: plain(createdAt ?? null) };
}

export function visible(document, { user, org }, defaultOrg = null) {
  if (plain(document.createdBy) === user) return true;
  const owner = plain(document.orgId ?? null) ?? defaultOrg;
  return !document.isPrivate && owner !== null && owner === org;
}

export function counts(documents) {
  const completedCount = documents.filter(({ status }) => status === 'merged').length;
  const failedCount = documents.filter(({ status }) => status === 'failed').length;
  return { activeCount: documents.length - completedCount - failedCount, completedCount, failedCount };
}

/** A received view, without the fields of the event that carried it. */
export function viewOf({ eventId, occurredAt, ...view }) {
  return view;
}

/** The value of the first of these names that the document has, else null. */
function first(document, ...names) {
  return names.map((name) => document[name]).find((value) => value !== undefined && value !== null) ?? null;
}

/** BSON as JSON: ids and times as strings. */
function plain(value) {
  if (value === null || value === undefined) return null;
  if (value instanceof Date) return value.toISOString();
  if (value._bsontype === 'ObjectId') return value.toHexString();
  if (value._bsontype === 'Long') return value.toNumber();
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
  return value;
}

function redacted(value) {
  if (Array.isArray(value)) return value.map(redacted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, NAMES_A_SECRET.test(key) ? '[redacted]' : redacted(inner)]),
  );
}
