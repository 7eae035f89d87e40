// `test` of node:test that shows what the gateways said when it fails, and closes the clients it has opened.
import { test as nodeTest } from 'node:test';

import { closeClients } from './client.js';
import { recentLogs } from './gateway.js';

const TIMEOUT = 120_000;

export function test(name, body, { timeout = TIMEOUT, ...options } = {}) {
  nodeTest(name, { timeout, ...options }, async (context) => {
    try {
      await body(context);
    } catch (error) {
      console.error(`${name}: failed\n${recentLogs()}`);
      throw error;
    } finally {
      closeClients();
    }
  });
}
