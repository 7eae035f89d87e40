// What the existing client does beside its components: a resync on every connect, and back at once after a server's disconnect.
import io from 'socket.io-client';

export default function connect(url, options) {
  const socket = io(url, options);
  globalThis.sockets.push(socket);
  socket.on('connect', () => {
    socket.emit('resync_requested');
    if (globalThis.currentTaskId) socket.emit('resync_requested', { taskIds: [globalThis.currentTaskId] });
  });
  socket.on('disconnect', (reason) => {
    if (reason === 'io server disconnect') socket.connect();
  });
  socket.onAny((event, payload) => globalThis.received.push({ event, payload }));
  return socket;
}
