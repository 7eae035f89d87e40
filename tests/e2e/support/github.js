// Webhooks with the example payloads and signatures of GitHub's own libraries.
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';

import { sign } from '@octokit/webhooks-methods';

const require = createRequire(import.meta.url);
export const SECRET = 'the webhook secret of these tests';

/** All documented payloads of GitHub and of GitHub Enterprise Server: {event, payload}. */
export const examples = ['api.github.com', 'ghes-31', 'ghes-32', 'ghes-33', 'ghes-34', 'ghes-35'].flatMap((edition) =>
  require(`@octokit/webhooks-examples/${edition}/index.json`).flatMap(({ name, examples: payloads }) =>
    payloads.map((payload) => ({ event: name, payload }))));

/** A copy of an example. */
export function example(event, action) {
  const found = examples.find((one) => one.event === event && one.payload.action === action);
  return structuredClone(found.payload);
}

/** Sends a delivery as GitHub does. The options override its parts; a null header is left out. */
export async function deliver(gateway, event, payload, { id = randomUUID(), secret = SECRET, body, headers = {} } = {}) {
  const sent = body ?? JSON.stringify(payload);
  const all = {
    'content-type': 'application/json',
    'x-github-event': event,
    'x-github-delivery': id,
    'x-hub-signature-256': headers['x-hub-signature-256'] === undefined ? await sign(secret, String(sent)) : null,
    ...headers,
  };
  const present = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null));
  const answer = await fetch(`${gateway.url}/api/webhooks/github`, { method: 'POST', headers: present, body: sent });
  return { status: answer.status, body: await answer.json() };
}
