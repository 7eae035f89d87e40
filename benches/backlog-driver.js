// The official driver's change stream, for benches/backlog.js. It prints "ready", then each title that ends with "the end".
import { MongoClient } from '../tests/chaos/support/packages.js';

const { uri, name, pipeline } = JSON.parse(process.env.DRIVER);
// The driver waits for MongoDB for up to an hour.
const client = await new MongoClient(uri, { appName: 'driver', serverSelectionTimeoutMS: 3_600_000 }).connect();
const stream = client.db(name).collection('tasks').watch(pipeline, { fullDocument: 'whenAvailable', fullDocumentBeforeChange: 'whenAvailable' });
stream.on('resumeTokenChanged', () => reportReady());
stream.on('change', ({ fullDocument }) => {
  if (fullDocument?.title?.endsWith('the end')) console.log(fullDocument.title);
});
stream.on('error', (error) => {
  console.error(error);
  process.exit(1);
});

let isReported = false;
/** Reports once that the stream is open and has a resume token. */
function reportReady() {
  if (!isReported) console.log('ready');
  isReported = true;
}
