// A client in its own process: node joins.js URL TOKEN TASK TRANSPORT. It prints "joined" when it has joined the task.
import { io } from 'socket.io-client';

const [url, token, taskId, transport] = process.argv.slice(2);
const socket = io(url, { auth: { token }, transports: [transport], reconnection: false });
socket.on('connect', () => socket.emit('task:join', { taskId }, ({ ok }) => ok && process.stdout.write('joined\n')));
