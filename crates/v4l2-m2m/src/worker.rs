// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thread that owns an encoder, so that nobody else ever waits inside a system call: a driver that hangs costs its
//! caller a bounded time, and no lock is held across an ioctl.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::buffer::Slot;
use crate::config::Config;
use crate::controls::{Effect, Refused};
use crate::encoder::{self, Encoder, Out, Raw, Setup};
use crate::error::{EncoderError, ProbeError};
use crate::expect::Expect;
use crate::ioctl::QueueError;
use crate::loan::Lender;
use crate::ops::{Interest, Ready, V4l2Ops, Waker};
use crate::patience::{LONGEST, Patience, SLICE};
use crate::picture::Layout;
use crate::probe::CodecSupport;

/// What an open device is.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The node.
    pub path: PathBuf,
    /// The driver's name.
    pub driver: String,
    /// The device's name.
    pub card: String,
    /// What it encodes.
    pub codecs: Vec<CodecSupport>,
}

/// Why a worker does not answer well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The process has no thread or descriptor left.
    #[error("no thread for the device: {0}")]
    Start(#[source] std::io::Error),
    /// No encoder.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The device refuses.
    #[error(transparent)]
    Encoder(Arc<EncoderError>),
    /// The device does not come back from a call.
    #[error("the device has not answered for {0:?}")]
    TimedOut(Duration),
    /// The thread has ended.
    #[error("the device's thread has ended")]
    Ended,
}

/// A live change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bitrate and peak, bit/s.
    Bitrate(u32, u32),
    /// Frames from one keyframe to the next.
    Gop(u32),
    /// Frames per second, as a fraction.
    Rate((u32, u32)),
}

enum Command {
    Configure(Box<Config>, mpsc::Sender<Result<Setup, Arc<EncoderError>>>),
    Encode { slot: Slot, raw: Raw, number: u64, force_key: bool, answer: Option<mpsc::Sender<bool>> },
    Change(Change),
    Headers,
    Drain,
    Flush(mpsc::Sender<()>),
    Stop(mpsc::Sender<()>),
    Quit,
}

/// Something that the one who asked for a stream has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A live change needs a new stream.
    RestartForChange(Change),
    /// The device cannot do this.
    Unsupported(Change),
    /// A keyframe needs a new stream.
    RestartForKey,
    /// Keyframe requests have no effect.
    NoKeyframes,
    /// A wish was refused.
    Refused(Refused),
}

/// A coded picture, or the loss of one.
#[derive(Debug)]
pub enum Coded {
    /// See [`Out::Frame`].
    Frame {
        /// See [`Out::Frame`].
        number: Option<u64>,
        /// The bytes.
        data: Vec<u8>,
        /// It can be decoded by itself.
        keyframe: bool,
        /// See [`Out::Frame`].
        end: bool,
        /// From giving it to the device to getting it back.
        encode_time: Option<Duration>,
    },
    /// See [`Out::Lost`].
    Lost {
        /// Which.
        number: u64,
    },
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// A free buffer.
    Slot,
    /// The right to give a lent buffer to the device.
    Permit,
    /// The free buffer of this number, while no more than `busy` others are in the device.
    SlotOf {
        /// See [`Slot::index`].
        index: u32,
        /// Buffers in the device.
        busy: usize,
    },
    /// The end of the stream.
    Drained,
}

/// What a wait ended with.
#[derive(Debug)]
pub enum Step {
    /// A free buffer, or the right to give a lent one to the device.
    Slot(Slot),
    /// A coded picture, which has to be dealt with first.
    Coded(Coded),
    /// The stream is drained, and all of it was taken out.
    Drained,
    /// The device has failed.
    Failed(Arc<EncoderError>),
    /// [`Worker::interrupt`] was called.
    Interrupted,
    /// Nothing happened for too long.
    TimedOut,
}

#[derive(Default)]
pub(crate) struct Link {
    /// Free buffers.
    slots: Vec<Slot>,
    /// How pictures lie in them.
    pub layout: Option<Arc<Layout>>,
    /// Of the slots.
    pub generation: u64,
    /// How many buffers the device has or is about to get, and how many it may have.
    busy: usize,
    most: usize,
    /// How many buffers producers have, and how many they may have. At least one stays for copies, which come and go; else
    /// a producer that has all of them and gives something else would wait for itself.
    lent: usize,
    most_lent: usize,
    coded: VecDeque<Coded>,
    notices: Vec<Notice>,
    error: Option<Arc<EncoderError>>,
    error_told: bool,
    drained: bool,
    interrupted: bool,
    quit: bool,
    headers_inserted: u64,
}

#[derive(Default)]
pub(crate) struct Shared {
    link: Mutex<Link>,
    changed: Condvar,
}

impl Link {
    /// The stream is over, and with it the worth of its buffers.
    fn forget(&mut self) {
        self.slots.clear();
        self.layout = None;
        self.generation = 0;
        (self.busy, self.most, self.lent, self.most_lent) = (0, 0, 0, 0);
    }

    /// Gives a slot away, if one more picture may be in the device.
    fn grant(&mut self, take: impl FnOnce(&mut Self) -> Option<Slot>) -> Option<Slot> {
        let slot = if self.busy < self.most { take(self) } else { None };
        self.busy += usize::from(slot.is_some());
        slot
    }

    /// A slot is back, of a picture that was read, or unused. Of another stream it is worthless.
    fn take_back(&mut self, slot: Slot) {
        if slot.generation == self.generation {
            self.busy = self.busy.saturating_sub(1);
            if !slot.is_permit() {
                self.slots.push(slot);
            }
        }
    }

    pub fn can_lend(&self) -> bool {
        self.lent < self.most_lent && !self.slots.is_empty()
    }

    /// A buffer for a producer.
    pub fn lend(&mut self) -> Option<Slot> {
        let slot = if self.can_lend() { self.slots.pop() } else { None };
        self.lent += usize::from(slot.is_some());
        slot
    }

    /// A producer's buffer is back.
    pub fn unlend(&mut self, slot: Slot) {
        if slot.generation == self.generation {
            self.lent = self.lent.saturating_sub(1);
            self.slots.push(slot);
        }
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn change(&self, with: impl FnOnce(&mut Link)) {
        with(&mut self.lock());
        self.changed.notify_all();
    }
}

/// The thread and the way to it.
pub struct Worker {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    ended: Mutex<mpsc::Receiver<()>>,
    info: DeviceInfo,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Worker {
    /// Opens a device: the one at `path`, or the first that encodes. `timeout` bounds how long any call to the device may
    /// take before it counts as hung, here and later.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn open(
        ops: &Arc<dyn V4l2Ops>,
        path: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, WorkerError> {
        let shared = Arc::new(Shared::default());
        let waker = Arc::new(Waker::new().map_err(WorkerError::Start)?);
        let (commands, receiver) = mpsc::channel();
        let (opened, result) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let run = {
            let (ops, shared, waker) = (Arc::clone(ops), Arc::clone(&shared), Arc::clone(&waker));
            move || {
                // Tells of the end by being dropped, however the thread ends.
                let _end: mpsc::Sender<()> = end;
                match encoder::open(&ops, path.as_deref()) {
                    Err(error) => drop(opened.send(Err(error))),
                    Ok(encoder) => {
                        let device = encoder.device();
                        let info = DeviceInfo {
                            path: device.path().to_owned(),
                            driver: device.capability.driver.clone(),
                            card: device.capability.card.clone(),
                            codecs: device.codecs.clone(),
                        };
                        if opened.send(Ok(info)).is_ok() {
                            let looped = Loop {
                                encoder,
                                shared: Arc::clone(&shared),
                                waker,
                                receiver,
                                timeout,
                                since: std::collections::BTreeMap::new(),
                                silence: Duration::ZERO,
                                expect: Expect::default(),
                            };
                            looped.run();
                            shared.change(Link::forget);
                        }
                    }
                }
            }
        };
        std::thread::Builder::new().name("v4l2-m2m".into()).spawn(run).map_err(WorkerError::Start)?;
        let info = receive(&result, timeout)??;
        Ok(Self { shared, commands, waker, ended: Mutex::new(ended), info })
    }

    /// The device.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn send(&self, command: Command) -> Result<(), WorkerError> {
        self.commands.send(command).map_err(|_| WorkerError::Ended)?;
        self.waker.wake();
        Ok(())
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(mpsc::Sender<T>) -> Command,
        timeout: Duration,
    ) -> Result<T, WorkerError> {
        let (sender, answer) = mpsc::channel();
        self.send(command(sender))?;
        receive(&answer, timeout)
    }

    /// Sets up a stream. What the one before had in the device is forgotten: drain it first.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn configure(&self, config: &Config, timeout: Duration) -> Result<Setup, WorkerError> {
        self.ask(|answer| Command::Configure(Box::new(config.clone()), answer), timeout)?
            .map_err(WorkerError::Encoder)
    }

    /// Gives a filled buffer to the device.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn encode(&self, slot: Slot, raw: Raw, number: u64, force_key: bool) -> Result<(), WorkerError> {
        self.send(Command::Encode { slot, raw, number, force_key, answer: None })
    }

    /// As [`Worker::encode`], but waits until the device has the picture. `false`: it does not take this memory; nothing
    /// is lost, and the stream goes on.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn offer(
        &self,
        slot: Slot,
        raw: Raw,
        number: u64,
        force_key: bool,
        timeout: Duration,
    ) -> Result<bool, WorkerError> {
        self.ask(|answer| Command::Encode { slot, raw, number, force_key, answer: Some(answer) }, timeout)
    }

    /// Gives a buffer back unused.
    pub fn put_back(&self, slot: Slot) {
        self.shared.change(|link| link.take_back(slot));
    }

    /// The way to buffers that a producer may fill ([`Config::loans`]).
    #[must_use]
    pub fn lender(&self) -> Lender {
        Lender::new(&self.shared)
    }

    /// A live change. What cannot be done live comes as a notice.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn change(&self, change: Change) -> Result<(), WorkerError> {
        self.send(Command::Change(change))
    }

    /// The next keyframe is to carry the parameter sets, whatever the others do ([`Config::repeat_headers`]).
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn want_headers(&self) -> Result<(), WorkerError> {
        self.send(Command::Headers)
    }

    /// Begins to drain; [`Step::Drained`] follows.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn drain(&self) -> Result<(), WorkerError> {
        self.shared.lock().drained = false;
        self.send(Command::Drain)
    }

    /// Forgets what is in the device.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn flush(&self, timeout: Duration) -> Result<(), WorkerError> {
        self.ask(Command::Flush, timeout)
    }

    /// Ends the stream and frees its buffers; the device stays open.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn stop(&self, timeout: Duration) -> Result<(), WorkerError> {
        self.ask(Command::Stop, timeout)
    }

    /// Ends waits at once, now and until [`Worker::resume`].
    pub fn interrupt(&self) {
        self.shared.change(|link| link.interrupted = true);
    }

    /// Waits are possible again.
    pub fn resume(&self) {
        self.shared.change(|link| link.interrupted = false);
    }

    /// Waits for a buffer or the end of the stream, but first for coded pictures. For one thread at a time.
    #[must_use]
    pub fn step(&self, want: Want, timeout: Duration) -> Step {
        let mut patience = Patience::new(timeout, Instant::now());
        let mut link = self.shared.lock();
        loop {
            if link.interrupted {
                return Step::Interrupted;
            }
            // What came out goes on before anything goes in, so that nothing piles up.
            if let Some(coded) = link.coded.pop_front() {
                return Step::Coded(coded);
            }
            if let Some(error) = link.error.clone() {
                link.error_told = true;
                return Step::Failed(error);
            }
            match want {
                Want::Slot => {
                    if let Some(slot) = link.grant(|link| link.slots.pop()) {
                        return Step::Slot(slot);
                    }
                }
                Want::Permit => {
                    if let Some(slot) = link.grant(|link| Some(Slot::permit(link.generation))) {
                        return Step::Slot(slot);
                    }
                }
                Want::SlotOf { index, busy } => {
                    let place = link.slots.iter().position(|slot| slot.index() == index);
                    if let Some(place) = place
                        && link.busy <= busy
                        && let Some(slot) = link.grant(|link| Some(link.slots.swap_remove(place)))
                    {
                        return Step::Slot(slot);
                    }
                }
                Want::Drained if link.drained => return Step::Drained,
                Want::Drained => {}
            }
            let Some(slice) = patience.next(Instant::now()) else { return Step::TimedOut };
            link = match self.shared.changed.wait_timeout(link, slice) {
                Ok((link, _)) => link,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Waits until there is something to take out. `false`: the worker is to end.
    #[must_use]
    pub fn wait_coded(&self) -> bool {
        let mut link = self.shared.lock();
        loop {
            if link.quit {
                return false;
            }
            if !link.coded.is_empty()
                || !link.notices.is_empty()
                || (link.error.is_some() && !link.error_told)
            {
                return true;
            }
            link = self.shared.changed.wait(link).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A coded picture, if there is one.
    #[must_use]
    pub fn try_coded(&self) -> Option<Coded> {
        self.shared.lock().coded.pop_front()
    }

    /// The device's failure, told once.
    #[must_use]
    pub fn take_error(&self) -> Option<Arc<EncoderError>> {
        let mut link = self.shared.lock();
        if link.error_told {
            return None;
        }
        link.error_told = link.error.is_some();
        link.error.clone()
    }

    /// What there is to act on.
    #[must_use]
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.shared.lock().notices)
    }

    /// Keyframes that got their parameter sets in software, in this stream.
    #[must_use]
    pub fn headers_inserted(&self) -> u64 {
        self.shared.lock().headers_inserted
    }

    /// Ends [`Worker::wait_coded`], for good.
    pub fn release(&self) {
        self.shared.change(|link| link.quit = true);
    }

    /// Ends the thread and closes the device. `false`: the device does not let go in time; the thread is left behind, and
    /// closes the device when it can.
    #[must_use]
    pub fn quit(&self, timeout: Duration) -> bool {
        self.release();
        let _ = self.send(Command::Quit);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: the other end is dropped.
        matches!(receive(&ended, timeout), Err(WorkerError::Ended))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.release();
        let _ = self.send(Command::Quit);
    }
}

/// Waits for an answer of the thread.
fn receive<T>(answer: &mpsc::Receiver<T>, timeout: Duration) -> Result<T, WorkerError> {
    let mut patience = Patience::new(timeout, Instant::now());
    while let Some(slice) = patience.next(Instant::now()) {
        match answer.recv_timeout(slice) {
            Ok(answer) => return Ok(answer),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(WorkerError::Ended),
        }
    }
    Err(WorkerError::TimedOut(timeout))
}

/// What the thread has.
struct Loop {
    encoder: Encoder,
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    receiver: mpsc::Receiver<Command>,
    timeout: Duration,
    /// When frames were given to the device.
    since: std::collections::BTreeMap<u64, Instant>,
    /// How long the device has been silent while this thread could have heard it.
    silence: Duration,
    expect: Expect,
}

impl Loop {
    fn run(mut self) {
        let mut looked = Instant::now();
        loop {
            let mut out = Vec::new();
            loop {
                match self.receiver.try_recv() {
                    Ok(Command::Quit) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Ok(command) => self.handle(command, &mut out),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            let result = self.encoder.collect(&mut out);
            self.check(result);
            let now = Instant::now();
            let passed = now.duration_since(std::mem::replace(&mut looked, now)).min(LONGEST);
            let silence = self.encoder.silence();
            self.silence = silence.map_or(Duration::ZERO, |silence| silence.min(self.silence + passed));
            if self.silence >= self.timeout {
                self.check(Err(EncoderError::Hung(self.silence)));
            }
            self.publish(out);
            // Short enough to notice a drain that ends in silence, or a device that hangs.
            let waiting = self.encoder.silence().is_some() || self.encoder.interest().capture;
            let timeout = if waiting { SLICE.min(self.timeout) } else { Duration::from_secs(60) };
            if let Err(error) = self.wait(timeout) {
                self.check(Err(EncoderError::Wait(error)));
            }
        }
    }

    fn wait(&mut self, timeout: Duration) -> std::io::Result<Ready> {
        let device = self.encoder.device();
        let oldest = self.since.values().next();
        let pause = oldest.map_or(Duration::ZERO, |since| self.expect.pause(since.elapsed()));
        device.handle.wait(Interest { pause, ..self.encoder.interest() }, &self.waker, timeout)
    }

    /// After a failure the stream is over; the device stays open for another try.
    fn check(&mut self, result: Result<(), EncoderError>) {
        if let Err(error) = result {
            tracing::debug!(%error, "the device failed");
            self.encoder.stop();
            self.since.clear();
            self.shared.change(|link| {
                link.forget();
                link.error = Some(Arc::new(error));
            });
        }
    }

    fn handle(&mut self, command: Command, out: &mut Vec<Out>) {
        match command {
            Command::Configure(config, answer) => {
                self.since.clear();
                self.expect = Expect::default();
                {
                    let mut link = self.shared.lock();
                    let quit = link.quit;
                    let interrupted = link.interrupted;
                    let coded = std::mem::take(&mut link.coded);
                    *link = Link { quit, interrupted, coded, ..Link::default() };
                }
                out.clear();
                let result = self.encoder.configure(&config).map(|(setup, slots)| {
                    self.shared.change(|link| {
                        link.layout = Some(Arc::clone(&setup.layout));
                        link.generation = slots.first().map_or(0, |slot| slot.generation);
                        (link.most, link.most_lent) = (setup.inputs, setup.loans);
                        link.slots = slots;
                    });
                    setup
                });
                let _ = answer.send(result.map_err(Arc::new));
            }
            Command::Encode { slot, raw, number, force_key, answer } => {
                let tell = |taken| answer.as_ref().map(|answer| answer.send(taken));
                if !self.encoder.is_configured() {
                    out.push(Out::Lost { number });
                    tell(true);
                    return;
                }
                self.since.insert(number, Instant::now());
                let mut own = Vec::new();
                let result = self.encoder.encode(slot, &raw, number, force_key, &mut own);
                if let Err(EncoderError::Queue(error)) = &result
                    && !matches!(error, QueueError::Gone)
                    && answer.is_some()
                {
                    tracing::debug!(%error, "a picture is refused");
                    self.since.remove(&number);
                    out.extend(own.into_iter().filter(|out| matches!(out, Out::Slot(_))));
                    tell(false);
                    return;
                }
                out.append(&mut own);
                self.check(result);
                tell(true);
            }
            Command::Change(change) => {
                let effect = match change {
                    Change::Bitrate(bitrate, peak) => self.encoder.set_bitrate(bitrate, peak),
                    Change::Gop(frames) => self.encoder.set_gop(frames),
                    Change::Rate(rate) => self.encoder.set_rate(rate),
                };
                let refused = self.encoder.take_refused();
                self.shared.change(|link| {
                    link.notices.extend(refused.into_iter().map(Notice::Refused));
                    match effect {
                        Effect::Live => {}
                        Effect::Restart => link.notices.push(Notice::RestartForChange(change)),
                        Effect::Unsupported => link.notices.push(Notice::Unsupported(change)),
                    }
                });
            }
            Command::Headers => self.encoder.want_headers(),
            Command::Drain => {
                if self.encoder.is_configured() {
                    let result = self.encoder.drain(out);
                    self.check(result);
                } else {
                    out.push(Out::Drained);
                }
            }
            Command::Flush(answer) => {
                // What came before is forgotten with the rest.
                out.retain(|out| matches!(out, Out::Slot(_)));
                self.since.clear();
                self.shared.change(|link| {
                    link.coded.clear();
                    link.drained = false;
                });
                let result = self.encoder.flush(out);
                self.check(result);
                let _ = answer.send(());
            }
            Command::Stop(answer) => {
                self.encoder.stop();
                self.since.clear();
                out.clear();
                self.shared.change(|link| {
                    link.forget();
                    link.coded.clear();
                });
                let _ = answer.send(());
            }
            Command::Quit => {}
        }
    }

    fn publish(&mut self, out: Vec<Out>) {
        if out.is_empty() {
            return;
        }
        let (since, expect) = (&mut self.since, &mut self.expect);
        let inserted = self.encoder.headers_inserted();
        self.shared.change(|link| {
            link.headers_inserted = inserted;
            for out in out {
                match out {
                    Out::Slot(slot) => link.take_back(slot),
                    Out::Frame { number, data, keyframe, end } => {
                        let encode_time =
                            number.and_then(|number| since.remove(&number)).map(|since| since.elapsed());
                        if let Some(time) = encode_time {
                            expect.done(time);
                        }
                        link.coded.push_back(Coded::Frame { number, data, keyframe, end, encode_time });
                    }
                    Out::Lost { number } => {
                        since.remove(&number);
                        link.coded.push_back(Coded::Lost { number });
                    }
                    Out::Drained => link.drained = true,
                    Out::RestartForKey => link.notices.push(Notice::RestartForKey),
                    Out::NoKeyframes => link.notices.push(Notice::NoKeyframes),
                }
            }
        });
    }
}
