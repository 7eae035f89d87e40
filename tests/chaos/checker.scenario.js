// Tests the checker itself. A checker that misses faults would pass every scenario.
import assert from 'node:assert/strict';

import { History, nothingWrong } from './support/checker.js';

const TRUTH = [1, 2, 3, 5, 6];

/**
 * Judges a history. An array is a state with its whole list. {omitted, list} is a state without the beginning of its list. {title} is a
 * state that shows only the number of the last write. A number is an event.
 */
function countedFaults(...items) {
  const history = new History();
  for (const item of items) {
    if (Array.isArray(item)) history.state(item);
    else if ('list' in Object(item)) history.state(item.list, item.omitted);
    else if (typeof item === 'object') history.state(item.title);
    else history.event(item);
  }
  const counts = nothingWrong();
  history.countFaults(TRUTH, counts);
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

async function checkerFindsFaults() {
  assert.deepEqual(countedFaults([], 1, 2, 3, 5, 6), {});
  assert.deepEqual(countedFaults([1, 2, 3], 5, 6), {});
  assert.deepEqual(countedFaults({ title: 2 }, 3, 5, 6), {});
  assert.deepEqual(countedFaults({ omitted: 2, list: [3, 5] }, 6), {});
  assert.deepEqual(countedFaults([], 1, 2, [1], 2, 3, 5, 6), {}, 'an older state is allowed if the events after it continue from there');
  assert.deepEqual(countedFaults([], 1, [1, 2, 3, 5, 6]), {}, 'the state contains the missing events');
  assert.deepEqual(countedFaults([], 1, 2, 5, 6), { lost: 1 });
  assert.deepEqual(countedFaults([], 1, 2, 3, 5), { lost: 1 });
  assert.deepEqual(countedFaults([]), { lost: 5 });
  assert.deepEqual(countedFaults(), { lost: 5 });
  assert.deepEqual(countedFaults([1], 3, 5, 6), { lost: 1 });
  assert.deepEqual(countedFaults([], 1, 2, 2, 3, 5, 6), { doubled: 1 });
  assert.deepEqual(countedFaults([1, 2], 2, 3, 5, 6), { doubled: 1 });
  assert.deepEqual(countedFaults([], 1, 3, 2, 5, 6), { outOfOrder: 1 });
  assert.deepEqual(countedFaults([], 1, 2, 3, 4, 5, 6), { unknown: 1 }, 'the event was sent although its write was rolled back');
  assert.deepEqual(countedFaults(1, [1], 2, 3, 5, 6), { beforeState: 1 });
  assert.deepEqual(countedFaults([1, 3], 5, 6), { wrongStates: 1 });
  assert.deepEqual(countedFaults([2, 1, 3], 5, 6), { wrongStates: 1 });
  assert.deepEqual(countedFaults({ omitted: 1, list: [3, 5] }, 6), { wrongStates: 1 }, 'one entry is neither counted nor listed');
  assert.deepEqual(countedFaults({ omitted: 3, list: [3, 5] }, 6), { wrongStates: 1 });
  return {};
}

export const scenarios = [{ name: 'checker', short: checkerFindsFaults, long: checkerFindsFaults }];
