//! One client: connects with a token, joins rooms, answers pings, and counts the events that it receives.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hdrhistogram::Histogram;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use crate::{
    joins::Joins,
    measure::{histogram, now, quantiles, rounded},
    options::{Options, Recovery},
    packet::{self, Kind},
    stats::{Seen, Stats},
    ws::Ws,
};

const CONNECTED_WITHIN: Duration = Duration::from_secs(60);

/// The measurements and counters that all clients of a run share.
#[derive(Debug)]
pub struct World {
    pub options: Rc<Options>,
    pub stats: RefCell<Stats>,
    /// The times from opening the TCP connection to the server's CONNECT packet.
    pub handshakes: RefCell<Histogram<u64>>,
    /// The times from the CONNECT packet until the server has sent the state of every joined room.
    pub joins: RefCell<Histogram<u64>>,
    pub ready: Cell<usize>,
    pub failed: Cell<usize>,
    pub closed: Cell<usize>,
    /// The total number of events at which `reached` is notified.
    pub goal: Cell<u64>,
    pub reached: Notify,
}

impl World {
    pub fn new(options: &Rc<Options>) -> Rc<Self> {
        Rc::new(Self {
            options: options.clone(),
            stats: RefCell::new(Stats::from(u64::MAX)),
            handshakes: RefCell::new(histogram()),
            joins: RefCell::new(histogram()),
            ready: Cell::new(0),
            failed: Cell::new(0),
            closed: Cell::new(0),
            goal: Cell::new(u64::MAX),
            reached: Notify::new(),
        })
    }

    fn look_at_goal(&self) {
        if self.stats.borrow().total >= self.goal.get() {
            self.goal.set(u64::MAX);
            self.reached.notify_one();
        }
    }

    pub fn fail(&self, n: usize, error: &io::Error) {
        self.failed.set(self.failed.get() + 1);
        if self.failed.get() == 1 {
            eprintln!("client {n}: {error}");
        }
    }

    pub fn told(&self, seconds: f64, cpu: f64) -> Value {
        let ready = self.ready.get() as f64;
        json!({
            "ready": ready, "failed": self.failed.get(), "connects_per_s": (ready / seconds).round(),
            "handshake_ms": quantiles(&self.handshakes.borrow()), "join_ms": quantiles(&self.joins.borrow()),
            "cpu_ms_per_connect": rounded(cpu * 1e3 / ready.max(1.0)),
        })
    }
}

#[derive(Debug, Default)]
pub struct Client {
    pub n: usize,
    pub seen: Seen,
    /// The time at which the client began to connect.
    pub begun: u64,
    /// The last `eventId` or offset, if the client needs it to recover.
    pub last: Option<String>,
    /// The private session id (`pid`), which the library's recovery needs.
    pub session: Option<String>,
    pub recovered: bool,
}

impl Client {
    pub fn new(n: usize) -> Self {
        Self { n, ..Self::default() }
    }

    fn connect_packet(&self, options: &Options) -> io::Result<String> {
        let key = EncodingKey::from_secret(options.secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &options.claims(self.n), &key);
        let mut auth = json!({"token": token.map_err(io::Error::other)?});
        if let (Some(session), Some(offset)) = (&self.session, &self.last) {
            auth["pid"] = json!(session);
            auth["offset"] = json!(offset);
        }
        Ok(format!("40{auth}"))
    }

    /// Connects, and waits until every join has been answered.
    pub async fn connect(&mut self, world: &World, joins: &Joins) -> io::Result<Ws> {
        match timeout(CONNECTED_WITHIN, self.connect_in_time(world, joins)).await {
            Ok(done) => done,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn connect_in_time(&mut self, world: &World, joins: &Joins) -> io::Result<Ws> {
        let options = &world.options;
        self.begun = now();
        self.recovered = false;
        let mut ws = Ws::connect(options.urls[self.n % options.urls.len()], self.n).await?;
        ws.send(&self.connect_packet(options)?).await?;
        let (mut connected, mut states, mut acks) = (None, 0, 0);
        loop {
            let before = connected;
            let (mut refused, mut ping) = (None, false);
            let open = ws
                .read(&mut |packet| match packet {
                    b"2" => ping = true,
                    [b'4', b'0', ..] => {
                        connected = Some(now());
                        let session = packet::string(packet, "pid").map(str::to_owned);
                        self.recovered = session.is_some() && session == self.session;
                        self.session = session;
                    }
                    [b'4', b'4', ..] => refused = Some(String::from_utf8_lossy(packet).into_owned()),
                    [b'4', b'3', ..] => {
                        acks += 1;
                        self.recovered = memchr::memmem::find(packet, b"\"recovered\":true").is_some();
                    }
                    [b'4', b'2', ..] => match self.take(world, packet) {
                        Kind::State => states += 1,
                        Kind::Error => refused = Some(String::from_utf8_lossy(packet).into_owned()),
                        _ => {}
                    },
                    _ => {}
                })
                .await?;
            if ping {
                ws.send("3").await?;
            }
            if let Some(refused) = refused {
                return Err(io::Error::other(refused));
            }
            if !open {
                return Err(io::Error::other("closed before everything was joined"));
            }
            let Some(at) = connected else { continue };
            let by_library = self.recovered && options.recovery == Recovery::Library;
            if before.is_none() {
                world.handshakes.borrow_mut().record(at - self.begun).ok();
                if !by_library {
                    for packet in &joins.packets {
                        ws.send(packet).await?;
                    }
                }
            }
            if by_library || (states >= joins.states && acks >= joins.acks) {
                world.joins.borrow_mut().record((now() - at).max(1)).ok();
                return Ok(ws);
            }
        }
    }

    fn take(&mut self, world: &World, packet: &[u8]) -> Kind {
        if self.last.is_some() || self.session.is_some() {
            let last = match world.options.recovery {
                Recovery::Since => packet::string(packet, "eventId"),
                Recovery::Library => packet::offset(packet),
            };
            if let Some(last) = last {
                self.last = Some(last.to_owned());
            }
        }
        world.stats.borrow_mut().take(packet, &mut self.seen, self.begun)
    }

    /// Receives packets until the connection is closed.
    pub async fn listen(&mut self, world: &World, ws: &mut Ws) {
        loop {
            let mut ping = false;
            let open = ws
                .read(&mut |packet| match packet {
                    b"2" => ping = true,
                    [b'4', b'2', ..] => {
                        self.take(world, packet);
                    }
                    _ => {}
                })
                .await;
            world.look_at_goal();
            if !matches!(open, Ok(true)) || (ping && ws.send("3").await.is_err()) {
                return;
            }
        }
    }
}

async fn live(world: Rc<World>, n: usize, joins: Joins, permit: OwnedSemaphorePermit) {
    let mut client = Client::new(n);
    match client.connect(&world, &joins).await {
        Ok(mut ws) => {
            world.ready.set(world.ready.get() + 1);
            drop(permit);
            client.listen(&world, &mut ws).await;
            world.closed.set(world.closed.get() + 1);
        }
        Err(error) => world.fail(n, &error),
    }
}

/// Connects these clients, `at_once` at a time. Returns the seconds that this took, and the tasks in which the clients continue.
pub async fn open(world: &Rc<World>, clients: std::ops::Range<usize>) -> (f64, Vec<JoinHandle<()>>) {
    let (begun, at_once) = (now(), world.options.at_once);
    let places = Arc::new(Semaphore::new(at_once));
    let mut going = Vec::with_capacity(clients.len());
    for n in clients {
        let permit = places.clone().acquire_owned().await.expect("never closed");
        let joins = Joins::of(&world.options, n);
        going.push(spawn_local(live(world.clone(), n, joins, permit)));
    }
    let _all = places.acquire_many(at_once as u32).await.expect("never closed");
    ((now() - begun) as f64 / 1e6, going)
}
