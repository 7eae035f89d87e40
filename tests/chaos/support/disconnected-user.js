// Measures how long an administrator's disconnect of a user takes on every node. The time is reported, not asserted.
import assert from 'node:assert/strict';

import { Client } from '../../e2e/support/client.js';
import { api } from '../../e2e/support/http.js';
import { member } from '../../e2e/support/tokens.js';
import { until } from '../../e2e/support/until.js';

export class DisconnectedUser {
  /** Connects a client of the user to each node. */
  static async on(nodes, user) {
    const token = await member(user);
    const clients = await Promise.all(nodes.map((node) => Client.connect(node, token)));
    return Object.assign(new this(), { nodes, user, clients });
  }

  /** Disconnects the user through the first node. */
  async disconnect() {
    const token = await member('ops', 'acme', { scope: 'admin' });
    const answer = await api(this.nodes[0].url, 'POST', '/api/admin/disconnect', { token, body: { userId: this.user } });
    assert.equal(answer.status, 200);
  }

  /** Waits until this many nodes have disconnected the user; returns the milliseconds from now. */
  async waitUntilDisconnected(nodes = this.nodes.length) {
    const begun = performance.now();
    const left = () => this.clients.filter(({ socket }) => !socket.connected);
    await until(() => left().length >= nodes, 'the user is disconnected', 60_000);
    for (const client of left()) assert.deepEqual(client.all('error').map(({ code }) => code), ['unauthorized']);
    return Math.round(performance.now() - begun);
  }
}
