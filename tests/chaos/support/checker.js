// The history checker compares the events that a client received about one task with the database at the end.
//
// Each write appends the timeline entry {n} and sets the title to "#n", where n counts the writes of that task. Therefore the final
// timeline is the truth for three histories of a client: received entries, titles in the task's room, and titles on the dashboard.

/** The task's title after write `n`; a new task has `titleOf(0)`. */
export const titleOf = (n) => `#${n}`;
export const numberOf = (title) => (/^#\d+$/.test(title) ? Number(title.slice(1)) : NaN);

const lastOf = (numbers) => (Array.isArray(numbers) ? (numbers.at(-1) ?? 0) : numbers);

/** One history: states, which replace everything before them, and the numbers of single events. */
export class History {
  #log = [];
  last = null;

  /** Adds a state: the list of all numbers so far without the first `omitted`, or only the last number. */
  state(numbers, omitted = 0) {
    this.#log.push({ numbers, omitted });
    this.last = lastOf(numbers);
  }

  event(n) {
    this.#log.push({ n });
    this.last = n;
  }

  /** Adds the faults of this history to `counts`. `truth` are the numbers of the database, in its order. */
  countFaults(truth, counts) {
    const indexOf = new Map(truth.map((n, index) => [n, index]));
    let next = null;
    let received = new Set();
    const missing = new Set();
    for (const item of this.#log) {
      if ('numbers' in item) {
        // Events that were missing before are in the state, or older than it.
        missing.clear();
        received = new Set();
        const { numbers, omitted } = item;
        const last = lastOf(numbers);
        const index = last === 0 ? -1 : indexOf.get(last);
        const isWrong = () => omitted + numbers.length !== index + 1 || numbers.some((n, i) => truth[omitted + i] !== n);
        if (index === undefined || (Array.isArray(numbers) && isWrong())) counts.wrongStates += 1;
        next = (index ?? -1) + 1;
        continue;
      }
      const index = indexOf.get(item.n);
      if (index === undefined) counts.unknown += 1;
      else if (next === null) counts.beforeState += 1;
      else if (index === next) received.add(next++);
      else if (index > next) {
        for (let lost = next; lost < index; lost += 1) missing.add(lost);
        received.add(index);
        next = index + 1;
      } else if (missing.delete(index)) {
        counts.outOfOrder += 1;
        received.add(index);
      } else counts.doubled += 1;
    }
    counts.lost += missing.size + (next === null ? truth.length : truth.length - next);
  }
}

/** A zero count for each kind of fault. */
export const nothingWrong = () => ({ lost: 0, doubled: 0, outOfOrder: 0, forbidden: 0, unknown: 0, wrongStates: 0, beforeState: 0 });
