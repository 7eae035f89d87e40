// A browser tab with the existing client's unmodified components, in jsdom.
import { join } from 'node:path';

import { build } from 'esbuild';
import { JSDOM, VirtualConsole } from 'jsdom';

import { PACKAGE } from './paths.js';

/** Bundles the page: unmodified components from `existingClient`, with React and Socket.IO from this package. */
export async function bundle(existingClient) {
  const io = join(PACKAGE, 'browser/io.js');
  const { outputFiles } = await build({
    entryPoints: [join(PACKAGE, 'browser/page.jsx')],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    jsx: 'automatic',
    alias: { 'existing-client': existingClient },
    nodePaths: [join(PACKAGE, 'node_modules')],
    inject: [join(PACKAGE, 'browser/stand-ins.jsx')],
    define: { 'process.env.REACT_APP_API_URL': 'globalThis.API_URL', 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
    plugins: [{
      name: 'io-with-resync',
      setup({ onResolve }) {
        onResolve({ filter: /^socket\.io-client$/ }, ({ importer }) => (importer === io ? undefined : { path: io }));
      },
    }],
  });
  return outputFiles[0].text;
}

export class Tab {
  /** `backend(path)` answers the existing backend's REST calls. */
  constructor(script, { url, token, path, backend }) {
    this.errors = [];
    this.requests = 0;
    this.pending = 0;
    const virtualConsole = new VirtualConsole();
    virtualConsole.on('jsdomError', (error) => {
      // jsdom also reports refused connections while the gateway is down. The page does not cause these.
      if (error.type === 'unhandled-exception' || error.type === 'unhandled exception') this.errors.push(error);
    });
    this.dom = new JSDOM('<!doctype html><div id="root"></div>', {
      url: `http://localhost:5173${path}`, runScripts: 'outside-only', pretendToBeVisual: true, virtualConsole,
    });
    const { window } = this.dom;
    window.API_URL = url;
    window.TextEncoder = TextEncoder;
    window.TextDecoder = TextDecoder;
    window.localStorage.setItem('auth_token', token);
    window.currentTaskId = path.match(/^\/tasks\/(.+)/)?.[1];
    window.fetch = async (request) => {
      this.requests += 1;
      this.pending += 1;
      try {
        const answer = await backend(request);
        return { json: async () => answer };
      } finally {
        this.pending -= 1;
      }
    };
    window.addEventListener('error', ({ error }) => this.errors.push(error));
    window.eval(script);
    window.mount(path);
  }

  get socket() {
    return this.dom.window.sockets[0];
  }

  get received() {
    return this.dom.window.received;
  }

  /** Returns whether the component has its socket and both of its REST calls were answered. */
  get settled() {
    return this.requests >= 2 && this.pending === 0 && this.socket?.connected;
  }

  select(css) {
    return [...this.dom.window.document.querySelectorAll(css)];
  }

  /** The tasks that the list shows, by task id. */
  cards() {
    return new Map(this.select('.task-card').map((card) => {
      const task = JSON.parse(card.dataset.task);
      return [task._id, task];
    }));
  }

  /** The contents of the task's page. */
  detail() {
    const link = (text) => this.select('a').find((a) => a.textContent === text)?.getAttribute('href') ?? null;
    return {
      title: this.select('h1')[0]?.textContent ?? null,
      status: this.select('.status-badge')[0]?.textContent ?? null,
      issue: link('View Issue'),
      pr: link('View PR'),
      timeline: this.select('.timeline-event').map((entry) => ({
        type: entry.querySelector('.event-type').textContent,
        payload: [...entry.querySelectorAll('.event-payload > div')].map((line) => line.textContent),
      })),
    };
  }

  close() {
    this.dom.window.unmount();
    this.dom.window.close();
  }
}
