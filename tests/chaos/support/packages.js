// Packages of the end-to-end tests. Both suites share one package-lock.json.
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { PACKAGE } from '../../e2e/support/paths.js';

const require = createRequire(join(PACKAGE, 'package.json'));

export const { MongoClient, ObjectId } = require('mongodb');
export const { io } = require('socket.io-client');
