package io.socket.client;

import java.util.Map;

public class SocketOptionBuilder {
    public SocketOptionBuilder setTransports(String[] transports) {
        return this;
    }

    public SocketOptionBuilder setAuth(Map<String, String> auth) {
        return this;
    }

    public IO.Options build() {
        return new IO.Options();
    }
}
