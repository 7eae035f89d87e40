// `test` of node:test that closes the clients of each test. When a test fails, it prints the gateways' logs and kills the child
// processes of the test, which would otherwise keep the file running.
import { test as nodeTest } from 'node:test';

import { closeClients } from './client.js';
import { recentLogs } from './gateway.js';
import { processMark } from './processes.js';

const TIMEOUT = 120_000;

export function test(name, body, { timeout = TIMEOUT, ...options } = {}) {
  nodeTest(name, { timeout, ...options }, async (context) => {
    const killStarted = processMark();
    try {
      await body(context);
    } catch (error) {
      console.error(`${name}: failed\n${recentLogs()}`);
      killStarted();
      throw error;
    } finally {
      closeClients();
    }
  });
}
