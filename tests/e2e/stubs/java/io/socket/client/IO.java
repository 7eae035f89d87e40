package io.socket.client;

import java.net.URI;
import java.net.URISyntaxException;

public class IO {
    public static Socket socket(String uri) throws URISyntaxException {
        return new Socket();
    }

    public static Socket socket(String uri, Options opts) throws URISyntaxException {
        return new Socket();
    }

    public static Socket socket(URI uri, Options opts) {
        return new Socket();
    }

    public static class Options {
        public static SocketOptionBuilder builder() {
            return new SocketOptionBuilder();
        }
    }
}
