// Helpers for requests to the HTTP API.

/** Calls the API. `body` of the result is the parsed JSON, or undefined. */
export async function api(base, method, path, { token, body, headers = {}, raw } = {}) {
  const answer = await fetch(base + path, {
    method,
    headers: {
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...(body !== undefined ? { 'content-type': 'application/json' } : {}),
      ...headers,
    },
    body: raw ?? (body === undefined ? undefined : JSON.stringify(body)),
  });
  const text = await answer.text();
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: answer.status, headers: answer.headers, text, body: json };
}

/** Creates a task and returns its view. */
export async function createTask(base, token, fields = {}) {
  const answer = await api(base, 'POST', '/api/tasks', { token, body: { title: 'a task', ...fields } });
  if (answer.status !== 202) throw new Error(`POST /api/tasks: ${answer.status} ${answer.text}`);
  return answer.body;
}

export async function patchTask(base, token, id, fields) {
  const answer = await api(base, 'PATCH', `/api/tasks/${id}`, { token, body: fields });
  if (answer.status < 200 || answer.status > 299) throw new Error(`PATCH ${id}: ${answer.status} ${answer.text}`);
  return answer.body;
}
