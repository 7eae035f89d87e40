// Like server.js, but with NestJS, as people usually write it: the dashboard checks for each socket whether it may see a task.
import 'reflect-metadata';
import { Controller, Get, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { IoAdapter } from '@nestjs/platform-socket.io';
import { ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway, WebSocketServer } from '@nestjs/websockets';
import jwt from 'jsonwebtoken';
import { MongoClient, ObjectId } from 'mongodb';

import { canSee, eventsOf, PIPELINE, state, STREAM, summary, visibleTo } from './tasks.js';

const { JWT_SECRET, MONGODB_DB, MONGODB_URI, PORT } = process.env;
const DASHBOARD_LIMIT = 500;
const tasks = (await new MongoClient(MONGODB_URI).connect()).db(MONGODB_DB).collection('tasks');

class TaskGateway {
  handleConnection(client) {
    try {
      const { sub, orgId } = jwt.verify(client.handshake.auth.token, JWT_SECRET, { algorithms: ['HS256'] });
      client.data.user = { id: sub, orgId };
    } catch {
      client.disconnect(true);
    }
  }

  async task(client, { taskId }) {
    await client.join(`task:${taskId}`);
    const found = await tasks.findOne({ _id: new ObjectId(taskId) });
    if (found && canSee(client.data.user, found)) return void client.emit('task:state', state(found));
    await client.leave(`task:${taskId}`);
    client.emit('error', { code: 'not_found' });
  }

  async dashboard(client) {
    await client.join('dashboard');
    const list = await tasks.find(visibleTo(client.data.user), { projection: { events: 0 } }).sort({ createdAt: -1 }).limit(DASHBOARD_LIMIT).toArray();
    client.emit('dashboard:state', list.map(summary));
  }

  async take(change) {
    const emitted = eventsOf(change);
    if (!emitted) return;
    for (const [event, payload] of emitted.room) this.server.to(`task:${emitted.task._id}`).emit(event, payload);
    const sockets = (await this.server.in('dashboard').fetchSockets()).filter(({ data }) => canSee(data.user, emitted.task));
    for (const [event, payload] of emitted.list) for (const socket of sockets) socket.emit(event, payload);
  }
}

// This is JavaScript, so the decorators are called as functions.
WebSocketServer()(TaskGateway.prototype, 'server');
for (const [method, event] of [['task', 'task:join'], ['dashboard', 'dashboard:join']]) {
  SubscribeMessage(event)(TaskGateway.prototype, method, Object.getOwnPropertyDescriptor(TaskGateway.prototype, method));
  ConnectedSocket()(TaskGateway.prototype, method, 0);
  MessageBody()(TaskGateway.prototype, method, 1);
}
WebSocketGateway({ cors: { origin: '*' } })(TaskGateway);

class HealthController {
  health() {
    return { status: 'ok' };
  }
}
Controller()(HealthController);
Get('api/health')(HealthController.prototype, 'health', Object.getOwnPropertyDescriptor(HealthController.prototype, 'health'));

class AppModule {}
Module({ providers: [TaskGateway], controllers: [HealthController] })(AppModule);

const app = await NestFactory.create(AppModule, { logger: ['error', 'warn'] });
app.useWebSocketAdapter(new IoAdapter(app));
const gateway = app.get(TaskGateway);
tasks.watch(PIPELINE, STREAM).on('change', (change) => gateway.take(change));
process.once('SIGTERM', () => process.exit(0));
await app.listen(Number(PORT), '127.0.0.1');
