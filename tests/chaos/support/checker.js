// The history checker: what a client was told of one task, compared with what the database has in the end.
//
// Each write appends the timeline entry {n} and sets the title to "#n", with n counting the writes of that task. So the final timeline
// is the truth for three histories of a client: the entries it was told, the titles in the task's room, the titles on the dashboard.

/** The task's title after write `n`; a new task has `titleOf(0)`. */
export const titleOf = (n) => `#${n}`;
export const numberOf = (title) => (/^#\d+$/.test(title) ? Number(title.slice(1)) : NaN);

const lastOf = (numbers) => (Array.isArray(numbers) ? (numbers.at(-1) ?? 0) : numbers);

/** One history: states that start anew, and numbers that were told one by one. */
export class History {
  #log = [];
  last = null;

  /** A state with all numbers up to now: the list, but for so many at its beginning, or just the last one. */
  state(numbers, omitted = 0) {
    this.#log.push({ numbers, omitted });
    this.last = lastOf(numbers);
  }

  told(n) {
    this.#log.push({ n });
    this.last = n;
  }

  /** `truth`: the numbers that the database has, in its order. Adds to `counts`. */
  judge(truth, counts) {
    const place = new Map(truth.map((n, index) => [n, index]));
    let next = null;
    let seen = new Set();
    const missing = new Set();
    for (const item of this.#log) {
      if ('numbers' in item) {
        // Whatever was missing before is in the state, or older than it.
        missing.clear();
        seen = new Set();
        const { numbers, omitted } = item;
        const last = lastOf(numbers);
        const index = last === 0 ? -1 : place.get(last);
        const isWrong = () => omitted + numbers.length !== index + 1 || numbers.some((n, i) => truth[omitted + i] !== n);
        if (index === undefined || (Array.isArray(numbers) && isWrong())) counts.wrongStates += 1;
        next = (index ?? -1) + 1;
        continue;
      }
      const index = place.get(item.n);
      if (index === undefined) counts.unknown += 1;
      else if (next === null) counts.beforeState += 1;
      else if (index === next) seen.add(next++);
      else if (index > next) {
        for (let lost = next; lost < index; lost += 1) missing.add(lost);
        seen.add(index);
        next = index + 1;
      } else if (missing.delete(index)) {
        counts.outOfOrder += 1;
        seen.add(index);
      } else counts.doubled += 1;
    }
    counts.lost += missing.size + (next === null ? truth.length : truth.length - next);
  }
}

/** Everything that may go wrong, at zero. */
export const nothingWrong = () => ({ lost: 0, doubled: 0, outOfOrder: 0, forbidden: 0, unknown: 0, wrongStates: 0, beforeState: 0 });
