// The connection code of the existing client: it resyncs on every connect, and reconnects at once after a disconnect by the server.
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
