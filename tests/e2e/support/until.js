// Waiting for something observable, with a deadline; the only way anything is waited for here.

const STEP = 10;

/** Resolves to what `condition` returns as soon as that is truthy; it may be async. A throw counts as "not yet". */
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

/** Waits until `assertion` no longer throws; afterwards its last complaint is the error. */
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

/** The first argument of an emitter's next event, or an error naming it. */
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
