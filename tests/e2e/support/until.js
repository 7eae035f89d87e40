// Waits for an observable condition, with a deadline. The tests wait only with these functions.

const STEP = 10;

/** Resolves to the first truthy result of `condition`, which may be async. An exception counts as "not yet". */
export async function until(condition, what, within = 20_000) {
  const deadline = Date.now() + within;
  let last;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) {
      const text = typeof what === 'function' ? what() : what;
      throw new Error(`not within ${within} ms: ${text}${last ? `\n${last.message}` : ''}`, { cause: last });
    }
    await new Promise((resolve) => setTimeout(resolve, STEP));
  }
}

/** Waits until `assertion` no longer throws. After the deadline, its last error is thrown. */
export async function settles(assertion, within = 20_000) {
  const deadline = Date.now() + within;
  for (;;) {
    try {
      return await assertion();
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, STEP));
  }
}

/** Resolves to the first argument of the emitter's next event. After the deadline, it rejects with an error that names the event. */
export function once(emitter, event, within = 20_000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      emitter.off(event, listener);
      reject(new Error(`no "${event}" within ${within} ms`));
    }, within);
    const listener = (first) => {
      clearTimeout(timer);
      resolve(first);
    };
    emitter.once(event, listener);
  });
}
