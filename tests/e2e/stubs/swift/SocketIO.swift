// The parts of socket.io-client-swift 16 that docs/integration.md uses, with that library's signatures and without an implementation.
import Foundation

public protocol SocketData {}
extension Array: SocketData {}
extension Dictionary: SocketData {}
extension String: SocketData {}

public enum SocketClientEvent: String {
    case connect, disconnect, error, ping, pong, reconnect, reconnectAttempt, statusChange, websocketUpgrade
}

public enum SocketIOClientOption {
    case forceWebsockets(Bool)
    case reconnects(Bool)
}

public struct SocketIOClientConfiguration: ExpressibleByArrayLiteral {
    public init(arrayLiteral elements: SocketIOClientOption...) {}
}

public final class SocketAckEmitter {}

public final class SocketAnyEvent {
    public let event: String
    public let items: [Any]?

    init(event: String, items: [Any]?) {
        self.event = event
        self.items = items
    }
}

public typealias NormalCallback = ([Any], SocketAckEmitter) -> ()

open class SocketIOClient {
    open func connect(withPayload payload: [String: Any]? = nil) {}
    open func disconnect() {}
    open func emit(_ event: String, _ items: SocketData..., completion: (() -> ())? = nil) {}
    @discardableResult
    open func on(_ event: String, callback: @escaping NormalCallback) -> UUID { UUID() }
    @discardableResult
    open func on(clientEvent event: SocketClientEvent, callback: @escaping NormalCallback) -> UUID { UUID() }
    open func onAny(_ handler: @escaping (SocketAnyEvent) -> ()) {}
}

open class SocketManager {
    public var defaultSocket: SocketIOClient { SocketIOClient() }

    public init(socketURL: URL, config: SocketIOClientConfiguration = []) {}
    public convenience init(socketURL: URL, config: [String: Any]?) { self.init(socketURL: socketURL) }
}
