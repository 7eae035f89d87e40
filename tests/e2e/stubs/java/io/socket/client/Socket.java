package io.socket.client;

import io.socket.emitter.Emitter;

public class Socket extends Emitter {
    public static final String EVENT_CONNECT = "connect";
    public static final String EVENT_DISCONNECT = "disconnect";
    public static final String EVENT_CONNECT_ERROR = "connect_error";

    @Override
    public Emitter emit(String event, Object... args) {
        return this;
    }

    public Emitter emit(String event, Object[] args, Ack ack) {
        return this;
    }

    public Socket onAnyIncoming(Emitter.Listener fn) {
        return this;
    }

    public Socket connect() {
        return this;
    }

    public Socket disconnect() {
        return this;
    }
}
