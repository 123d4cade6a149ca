// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cameras' counters for Prometheus: `GET /metrics`.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use crate::counters::{Snapshot, State};
use crate::report::Board;

/// Who asks more often than this at once waits.
const CONNECTIONS: usize = 16;
/// For a whole connection.
const PATIENCE: Duration = Duration::from_secs(10);
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Pick = fn(&Snapshot) -> u64;

const COUNTERS: [(&str, &str, Pick); 10] = [
    ("frames", "Pictures sent", |s| s.frames),
    ("frames_dropped", "Pictures that cannot be sent as RTP/JPEG", |s| s.frames_dropped),
    ("packets", "RTP packets sent", |s| s.packets),
    ("packets_dropped", "Packets that could not be sent", |s| s.packets_dropped),
    ("icmp_errors", "Errors that the network reported", |s| s.icmp_errors),
    ("send_errors", "Failed system calls", |s| s.send_errors),
    ("system_calls", "System calls that the packets took", |s| s.system_calls),
    ("restarts", "Starts of the camera after the first one", |s| s.restarts),
    ("sender_reports", "RTCP sender reports sent", |s| s.sender_reports),
    ("receiver_reports", "RTCP reports that receivers sent", |s| s.receiver_reports),
];

#[derive(Debug)]
struct CameraCollector(Board);

impl Collector for CameraCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let entries: Vec<_> = self
            .0
            .entries()
            .into_iter()
            .map(|entry| ([("camera", entry.key), ("name", entry.name)], entry.counters.snapshot()))
            .collect();
        let mut counter = |name: &str, help: &str, unit: Option<&Unit>, pick: Pick| {
            let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            for (labels, snapshot) in &entries {
                ConstCounter::new(pick(snapshot)).encode(metric.encode_family(labels)?)?;
            }
            Ok(())
        };
        for (name, help, pick) in COUNTERS {
            counter(name, help, None, pick)?;
        }
        counter("sent", "UDP payload sent", Some(&Unit::Bytes), |s| s.bytes)?;
        #[allow(clippy::cast_precision_loss, reason = "a figure to draw")]
        let seconds = |count: u64, parts: f64| count as f64 / parts;
        type Gauge<'a> = (&'a str, &'a str, Option<Unit>, &'a dyn Fn(&Snapshot) -> f64);
        let gauges: [Gauge<'_>; 6] = [
            ("up", "1 while pictures are being sent", None, &|s| {
                f64::from(u8::from(s.state == State::Streaming))
            }),
            ("longest_frame_packets", "Packets of the longest picture", None, &|s| {
                seconds(s.max_packets_per_frame, 1.0)
            }),
            ("prepare", "Time spent on making packets", Some(Unit::Seconds), &|s| {
                seconds(s.prepare_time_ns, 1e9)
            }),
            (
                "receiver_lost",
                "Share of packets that the receiver reported as lost",
                Some(Unit::Ratios),
                &|s| seconds(s.receiver_fraction_lost, 256.0),
            ),
            ("receiver_jitter", "Jitter that the receiver reported", Some(Unit::Seconds), &|s| {
                seconds(s.receiver_jitter_us, 1e6)
            }),
            ("round_trip", "Time to the receiver and back", Some(Unit::Seconds), &|s| {
                seconds(s.round_trip_us, 1e6)
            }),
        ];
        for (name, help, unit, pick) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for (labels, snapshot) in &entries {
                ConstGauge::new(pick(snapshot)).encode(metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

/// Answers Prometheus until it is dropped.
#[derive(Debug)]
pub struct Exporter {
    /// Where it listens.
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Listens, in a thread of its own.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn start(address: SocketAddr, board: Board) -> std::io::Result<Self> {
        let mut registry = Registry::with_prefix("mjpeg_rtp");
        registry.register_collector(Box::new(CameraCollector(board)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, Arc::new(registry)) => {}
                    // Also when the sender is gone.
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self { address, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Connections are dropped with the runtime.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, registry: Arc<Registry>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Most likely no more file descriptors; some may come back.
                tracing::debug!("metrics: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let response = answer(&request, &registry);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // What a client does wrong is its own matter.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match text(registry) {
            Ok(text) => (StatusCode::OK, TEXT, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "cannot be written\n".to_owned()),
        },
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "text/plain", "there is only /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "there is only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::counters::Counters;
    use crate::report::Entry;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn figures_of_each_camera() {
        let counters = Arc::new(Counters::default());
        counters.frames.store(7, Relaxed);
        counters.receiver_fraction_lost.store(64, Relaxed);
        let board = Board::default();
        board.set(vec![Entry { key: "camera1".into(), name: "a \"b\"\n".into(), counters }]);
        let exporter = Exporter::start(([127, 0, 0, 1], 0).into(), board.clone()).unwrap();
        let text = ask(exporter.address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("content-type: application/openmetrics-text"), "{text}");
        assert!(
            text.contains("mjpeg_rtp_frames_total{camera=\"camera1\",name=\"a \\\"b\\\"\\n\"} 7\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "mjpeg_rtp_receiver_lost_ratios{camera=\"camera1\",name=\"a \\\"b\\\"\\n\"} 0.25\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
        // Cameras that are gone are not told of any more.
        board.set(Vec::new());
        assert!(!ask(exporter.address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").contains("camera1"));
    }

    #[test]
    fn what_it_does_not_answer() {
        let exporter = Exporter::start(([127, 0, 0, 1], 0).into(), Board::default()).unwrap();
        assert!(ask(exporter.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(
            ask(exporter.address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                .starts_with("HTTP/1.1 405")
        );
        assert!(ask(exporter.address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
        // Idle connections keep nobody away, and the address is free afterwards.
        let idle: Vec<_> =
            (0..CONNECTIONS / 2).map(|_| TcpStream::connect(exporter.address).unwrap()).collect();
        assert!(
            ask(exporter.address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200")
        );
        drop(idle);
        let address = exporter.address;
        assert!(Exporter::start(address, Board::default()).is_err());
        drop(exporter);
        assert!(TcpStream::connect(address).is_err());
    }
}
