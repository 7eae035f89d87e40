package io.socket.emitter;

public class Emitter {
    public interface Listener {
        void call(Object... args);
    }

    public Emitter on(String event, Listener fn) {
        return this;
    }

    public Emitter emit(String event, Object... args) {
        return this;
    }
}
