// Translates a change of a task into taskcast's events, as far as the benchmark's writes need them.
const STATUS_EVENTS = {
  analyzing: ({ _id, status }) => ['task:analyzing', { taskId: _id, status }],
  coding: ({ _id, status }) => ['task:coding', { taskId: _id, status }],
  needs_clarification: ({ _id, status, questions }) => ['task:clarification_needed', { taskId: _id, status, questions }],
  dispatched: ({ _id, status, issueNumber, issueUrl, githubBranch }) => ['task:dispatched', { taskId: _id, status, issueNumber, issueUrl, githubBranch }],
  pr_open: ({ _id, status, prNumber, prUrl, prTitle, prState }) => ['task:pr_opened', { taskId: _id, status, prNumber, prUrl, prTitle, prState }],
};
const CARRIED = new Set(['status', 'updatedAt']);

export const canSee = (user, task) => task.createdBy === user.id || (task.orgId === user.orgId && !task.isPrivate);

/** A filter for the tasks that a user may see. */
export const visibleTo = ({ id, orgId }) => ({ $or: [{ createdBy: id }, { orgId, isPrivate: { $ne: true } }] });

/** A summary with the same fields as taskcast's. */
export function summary(task) {
  const of = (name) => task[name] ?? null;
  const { _id, createdBy, createdAt, updatedAt } = task;
  const [issueNumber, issueUrl, prNumber, prUrl] = ['issueNumber', 'issueUrl', 'prNumber', 'prUrl'].map(of);
  return {
    _id, taskId: _id, title: of('title'), status: of('status'), creator: task.creatorName ?? createdBy, createdBy, orgId: of('orgId'), isPrivate: Boolean(task.isPrivate), createdAt, updatedAt,
    repo: of('repo'), issueNumber, githubIssueNumber: issueNumber, issueUrl, githubIssueUrl: issueUrl, githubBranch: of('githubBranch'), prNumber, githubPrNumber: prNumber, prUrl, githubPrUrl: prUrl,
    prTitle: of('prTitle'), prState: of('prState'), mergeCommitSha: of('mergeCommitSha'), mergedAt: of('mergedAt'), errorMessage: of('errorMessage'),
  };
}

export const state = (task) => ({ ...summary(task), questions: task.questions ?? null, clarificationAnswers: task.clarificationAnswers ?? null, events: task.events ?? [] });

/** The dashboard rooms that may see a task. With these rooms, sending needs no permission check. */
export const dashboardsOf = ({ createdBy, orgId, isPrivate }) => [`dashboard:user:${createdBy}`, ...(isPrivate ? [] : [`dashboard:org:${orgId}`])];

/** Leaves the timeline out of the document. New entries are in `updateDescription`. */
export const PIPELINE = [{ $project: { 'fullDocument.events': 0 } }];
/** With post-images, the document is as this change left it, not as a later lookup finds it. */
export const STREAM = { fullDocument: 'required' };

/** A change as {task, room: [[event, payload]], list: [[event, payload]]}, or undefined. */
export function eventsOf({ operationType, fullDocument: task, updateDescription }) {
  if (operationType !== 'update') return undefined;
  const fields = updateDescription.updatedFields;
  const taskId = task._id;
  const { updatedAt } = task;
  const room = [];
  if (fields.status !== undefined) {
    const [event, payload] = STATUS_EVENTS[task.status]?.(task) ?? ['task:updated', { taskId, status: task.status }];
    room.push([event, { ...payload, updatedAt }]);
  }
  const changed = {};
  for (const [name, value] of Object.entries(fields)) if (!CARRIED.has(name) && !name.startsWith('events')) changed[name] = value;
  if (Object.keys(changed).length > 0) room.push(['task:updated', { taskId, status: task.status, changed, updatedAt }]);
  for (const [name, event] of Object.entries(fields)) if (name.startsWith('events.')) room.push(['task:event_added', { taskId, event, updatedAt }]);
  const list = [['dashboard:task_list_updated', summary(task)]];
  if (fields.status !== undefined) list.push(['dashboard:task_count_changed', { taskId, status: task.status }]);
  return { task, room, list };
}
