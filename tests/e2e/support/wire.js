// Records all bytes that one viewer receives: events, states, acknowledgements, errors and HTTP answers.

export class Wire {
  #chunks = [];

  /** Listens below Socket.IO, from the first packet on, also after reconnects. */
  tap(socket) {
    const listen = (engine) => engine.on('packet', ({ data }) => this.take(data));
    listen(socket.io.engine);
    let engine = socket.io.engine;
    socket.io.on('open', () => {
      if (socket.io.engine !== engine) listen((engine = socket.io.engine));
    });
  }

  take(data) {
    if (data === undefined) return;
    this.#chunks.push(typeof data === 'string' ? data : Buffer.from(data).toString('latin1'));
  }

  /** Sends a request and records its whole answer. */
  async http(url, options) {
    const answer = await fetch(url, options);
    const text = await answer.text();
    this.take(JSON.stringify([...answer.headers]) + text);
    return { status: answer.status, text };
  }

  get text() {
    return this.#chunks.join('\n');
  }
}
