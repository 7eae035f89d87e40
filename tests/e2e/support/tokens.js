// Tokens, made by an independent library.
import { SignJWT } from 'jose';

import { JWT_SECRET } from './gateway.js';

export const now = () => Math.floor(Date.now() / 1000);

/** A token. `key` and `alg` default to the secret of the tests' gateways. Undefined claims are left out. */
export function sign(claims, { key = new TextEncoder().encode(JWT_SECRET), alg = 'HS256', header = {} } = {}) {
  const present = Object.entries({ iat: now(), exp: now() + 3600, ...claims }).filter(([, value]) => value !== undefined);
  return new SignJWT(Object.fromEntries(present)).setProtectedHeader({ alg, typ: 'JWT', ...header }).sign(key);
}

/** The token of a member of an organisation. */
export const member = (sub, orgId = 'acme', more = {}) => sign({ sub, orgId, name: `${sub} of ${orgId}`, ...more });

/** A token that may change tasks. */
export const pipeline = (orgId = 'acme') => member('pipeline', orgId, { scope: 'tasks:write' });
