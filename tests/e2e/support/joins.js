// A client in a process of its own: node joins.js URL TOKEN TASK TRANSPORT. It says when it has joined.
import { io } from 'socket.io-client';

const [url, token, taskId, transport] = process.argv.slice(2);
const socket = io(url, { auth: { token }, transports: [transport], reconnection: false });
socket.on('connect', () => socket.emit('task:join', { taskId }, ({ ok }) => ok && process.stdout.write('joined\n')));
