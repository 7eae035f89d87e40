// A key server like those of identity providers: an HTTP server with a JWK set.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';

import { exportJWK, generateKeyPair } from 'jose';

import { sign } from './tokens.js';

const tls = (name) => new URL(`tls/${name}`, import.meta.url).pathname;
/** A certificate for localhost and 127.0.0.1. */
export const TLS = { key: tls('server.key'), certificate: tls('server.pem') };
/** The certificate authority of this certificate. */
export const CA = tls('ca.pem');

export class KeyServer {
  /** The keys of the set. The server answers 503 while this is undefined. */
  keys = [];
  requestCount = 0;

  static async start(options) {
    const server = new KeyServer();
    await server.listen(options);
    return server;
  }

  /** Listens on its previous port, or on a free one. */
  async listen({ secure = false } = {}) {
    const answer = (_request, response) => {
      this.requestCount += 1;
      if (this.keys === undefined) response.writeHead(503).end();
      else response.writeHead(200, { 'content-type': 'application/jwk-set+json', 'cache-control': 'public, max-age=3600' }).end(JSON.stringify({ keys: this.keys }));
    };
    this.server = secure
      ? createSecureServer({ key: readFileSync(TLS.key), cert: readFileSync(TLS.certificate) }, answer)
      : createServer(answer);
    this.server.listen(this.port ?? 0, '127.0.0.1');
    await once(this.server, 'listening');
    this.port = this.server.address().port;
    this.url = `${secure ? 'https' : 'http'}://localhost:${this.port}/keys`;
  }

  async close() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** A key pair that signs tokens with this key id, or without one. A key server publishes `jwk`. */
export async function signer(alg, kid) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true, ...(alg === 'EdDSA' ? { crv: 'Ed25519' } : {}) });
  const jwk = { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' };
  return {
    alg, jwk, publicKey, privateKey,
    token: (claims = {}, header = {}) => sign({ sub: 'alice', orgId: 'acme', ...claims }, { key: privateKey, alg, header: { ...(kid === undefined ? {} : { kid }), ...header } }),
  };
}
