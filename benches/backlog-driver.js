// The official driver's change stream, for benches/backlog.js. Writes "ready", then each title that says that it is the end.
import { MongoClient } from '../tests/chaos/support/packages.js';

const { uri, name, pipeline } = JSON.parse(process.env.DRIVER);
// It waits for the server as long as it takes.
const client = await new MongoClient(uri, { appName: 'driver', serverSelectionTimeoutMS: 3_600_000 }).connect();
const stream = client.db(name).collection('tasks').watch(pipeline, { fullDocument: 'whenAvailable', fullDocumentBeforeChange: 'whenAvailable' });
stream.on('resumeTokenChanged', () => once());
stream.on('change', ({ fullDocument }) => {
  if (fullDocument?.title?.endsWith('the end')) console.log(fullDocument.title);
});
stream.on('error', (error) => {
  console.error(error);
  process.exit(1);
});

let told = false;
/** It is open and has a place to go on from. */
function once() {
  if (!told) console.log('ready');
  told = true;
}
