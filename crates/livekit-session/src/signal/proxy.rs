// SPDX-License-Identifier: MIT OR Apache-2.0

//! HTTP(S) proxies for signalling: which one the environment names for a server, and the tunnel through it
//! (RFC 9110 §9.3.6). Media does not go that way: UDP can't, and relays (TURN) are there for it.

use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;

use super::transport::Stream;
use crate::config::Secret;
use crate::error::Error;

/// How long a proxy may take to make a tunnel: it has to reach the server in that time.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(8);
/// The most that a proxy's answer may be long.
const MAX_ANSWER: usize = 16 * 1024;

/// The proxies of the environment, with what they need to know who asks. Its `Debug` output shows none of it.
///
/// Their values are URLs of HTTP proxies, `http://user:password@host:port` or `https://…`; without a scheme `http` is
/// meant.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `wss` and `https`, for `ws` and `http`: the variable that says so, and its value.
    secure: Option<(&'static str, Secret)>,
    plain: Option<(&'static str, Secret)>,
    /// What no proxy is used for.
    except: Option<Secret>,
}

impl Proxies {
    /// Those of this process's environment as it is now: `https_proxy` for `wss://` servers, `http_proxy` for
    /// `ws://` ones, else `all_proxy`; none for hosts in `no_proxy`. Each may be written in capitals, too; an empty one is none.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// The same of other variables.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| lookup(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let first = |names: [&'static str; 4]| {
            names.into_iter().find_map(|name| value(name).map(|value| (name, Secret::new(value))))
        };
        Self {
            secure: first(["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            plain: first(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            except: value("no_proxy").or_else(|| value("NO_PROXY")).map(Secret::new),
        }
    }

    /// The proxy for this server. None for this machine itself, which to a proxy is another one.
    pub(crate) fn for_url(&self, url: &url::Url) -> Result<Option<Proxy>, Error> {
        let secure = matches!(url.scheme(), "wss" | "https");
        let Some((variable, value)) = (if secure { &self.secure } else { &self.plain }) else {
            return Ok(None);
        };
        let is_here = match url.host() {
            None => return Ok(None),
            Some(url::Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
            }
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        };
        let Some(to) = target(url).filter(|_| !is_here) else { return Ok(None) };
        let except = self.except.as_ref().map(Secret::expose).unwrap_or_default();
        let choose = |all: &str, except: &str| Matcher::builder().all(all).no(except).build().intercept(&to);
        // With a proxy that is certainly one, to tell exceptions from a value that is none.
        if choose("http://proxy.invalid", except).is_none() {
            return Ok(None);
        }
        let wrong =
            |reason: &str| Error::ProxySetting { variable: (*variable).to_owned(), reason: reason.into() };
        let found = choose(value.expose(), "").ok_or_else(|| {
            wrong("its value is no URL like http://user:password@host:port (@ and / in a password: %40 and %2F)")
        })?;
        let secure = match found.uri().scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it names a SOCKS proxy, but only http:// and https:// proxies are used")),
        };
        // Of two @, the first ends the login there, and the second the host's name here.
        if found.uri().authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(wrong("its login has an @, which has to be written as %40"));
        }
        let host = found.uri().host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("it names no host"))?.to_owned();
        let authorization = found.basic_auth().cloned();
        let port = found.uri().port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Some(Proxy { secure, host, port, authorization, patience: TUNNEL_TIMEOUT }))
    }
}

/// A server's URL in the form in which proxies are looked up.
fn target(url: &url::Url) -> Option<Uri> {
    let scheme = if matches!(url.scheme(), "wss" | "https") { "https" } else { "http" };
    format!("{scheme}://{}/", url.host_str()?).parse().ok()
}

/// One proxy.
pub(crate) struct Proxy {
    /// Whether it is spoken to by TLS.
    pub(crate) secure: bool,
    /// With the brackets of an IPv6 address.
    host: String,
    pub(crate) port: u16,
    authorization: Option<HeaderValue>,
    /// How long it may take to answer.
    patience: Duration,
}

impl Proxy {
    /// As resolvers and TLS want it.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// What is wrong with it.
    pub(crate) fn error(&self, reason: impl Into<String>) -> Error {
        self.failure(None, reason)
    }

    fn failure(&self, status: Option<u16>, reason: impl Into<String>) -> Error {
        let proxy = format!("{}://{}:{}", if self.secure { "https" } else { "http" }, self.host, self.port);
        Error::Proxy { proxy, status, reason: reason.into() }
    }

    /// Has the proxy connect `stream` to `host` (an IPv6 address in brackets) and `port`.
    pub(crate) async fn tunnel(
        &self,
        stream: Box<dyn Stream>,
        host: &str,
        port: u16,
    ) -> Result<Box<dyn Stream>, Error> {
        let (to, patience) = (format!("{host}:{port}"), self.patience);
        tokio::time::timeout(patience, self.ask(stream, &to)).await.unwrap_or_else(|_| {
            Err(self.error(format!("it does not say within {patience:?} whether it reaches {to}")))
        })
    }

    async fn ask(&self, stream: Box<dyn Stream>, to: &str) -> Result<Box<dyn Stream>, Error> {
        let strange = |e: hyper::Error| self.error(format!("no answer of an HTTP proxy: {e}"));
        let mut request = Request::builder().method(Method::CONNECT).uri(to).header(HOST, to);
        if let Some(authorization) = &self.authorization {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| self.error(e.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_ANSWER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(strange)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(strange)?;
            let status = response.status();
            if !status.is_success() {
                return Err(self.failure(Some(status.as_u16()), self.refusal(status, to)));
            }
            hyper::upgrade::on(response).await.map_err(strange)
        };
        let connection = connection.with_upgrades();
        tokio::pin!(answer, connection);
        let mut running = true;
        let upgraded = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer?,
                _ = &mut connection, if running => running = false,
            }
        };
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    /// What a refusal means, in words.
    fn refusal(&self, status: StatusCode, to: &str) -> String {
        let number = status.as_u16();
        match number {
            407 if self.authorization.is_some() => {
                "it refuses the user and password that it was given (HTTP 407)".into()
            }
            407 => "it wants a user and password, or a kind of login other than Basic (HTTP 407)".into(),
            403 | 405 => format!("it does not allow a tunnel to {to} (HTTP {number})"),
            502..=504 => format!("it does not reach {to} (HTTP {number})"),
            _ => format!("it refuses a tunnel to {to} (HTTP {number})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let of = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Proxies::from_lookup(of)
    }

    fn chosen(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxy = proxies(variables).for_url(&url::Url::parse(url).unwrap()).unwrap()?;
        Some(format!("{}{}:{}", if proxy.secure { "tls " } else { "" }, proxy.host(), proxy.port))
    }

    #[test]
    fn the_variable_of_the_scheme_counts_then_the_one_for_all() {
        let all = [
            ("https_proxy", "http://secure:1"),
            ("HTTPS_PROXY", "http://loud:1"),
            ("HTTP_PROXY", "plain:2"),
            ("ALL_PROXY", "https://[2001:db8::1]:3"),
        ];
        assert_eq!(chosen(&all, "wss://room.example").as_deref(), Some("secure:1"));
        assert_eq!(chosen(&all, "https://room.example").as_deref(), Some("secure:1"));
        assert_eq!(chosen(&all, "ws://room.example:7880").as_deref(), Some("plain:2"));
        assert_eq!(chosen(&all[3..], "ws://room.example").as_deref(), Some("tls 2001:db8::1:3"));
        assert_eq!(chosen(&[("http_proxy", "proxy")], "ws://room.example").as_deref(), Some("proxy:80"));
        assert_eq!(chosen(&[("https_proxy", " "), ("all_proxy", "a:9")], "wss://x").as_deref(), Some("a:9"));
        assert_eq!(chosen(&[("http_proxy", "a:9")], "wss://x"), None);
        assert_eq!(chosen(&[], "wss://x"), None);
    }

    #[test]
    fn exceptions_and_this_machine_are_reached_without_it() {
        let with = |except| [("ALL_PROXY", "http://proxy:1"), ("NO_PROXY", except)];
        for except in ["room.example", ".room.example", "example", "*", "a, room.example", "10.1.0.0/16"] {
            let url = if except.contains('/') { "ws://10.1.2.3" } else { "wss://room.example" };
            assert_eq!(chosen(&with(except), url), None, "{except}");
        }
        for other in ["bedroom.example", "10.2.0.0/16", ""] {
            assert!(chosen(&with(other), "wss://room.example").is_some(), "{other}");
        }
        for here in ["ws://localhost", "wss://127.0.0.1:7880", "ws://[::1]:7880", "ws://a.localhost"] {
            assert_eq!(chosen(&with(""), here), None, "{here}");
        }
        // The exception counts even if the value is none that could be used.
        assert_eq!(chosen(&[("all_proxy", "socks5://p:1"), ("no_proxy", "x")], "ws://x"), None);
    }

    #[test]
    fn what_is_no_http_proxy_is_told_with_its_variable_and_without_its_value() {
        for value in
            ["socks5h://me:hush@p:1080", "ftp://me:hush@p", "http://me:hu@sh@p:1", "http://", "::hush::"]
        {
            let wrong = proxies(&[("HTTPS_PROXY", value)]);
            let error = wrong.for_url(&url::Url::parse("wss://x").unwrap()).err().unwrap();
            assert!(matches!(&error, Error::ProxySetting { variable, .. } if variable == "HTTPS_PROXY"));
            assert!(error.is_fatal());
            let text = format!("{error} {error:?} {wrong:?}");
            assert!(
                !text.contains("hush") && !text.contains("me:") && text.contains("HTTPS_PROXY"),
                "{text}"
            );
        }
    }

    /// Asks a proxy that answers like this for a tunnel: what it was asked, and what came of it.
    async fn ask(proxy: &str, reply: &str) -> (String, Result<Box<dyn Stream>, Error>) {
        let url = url::Url::parse("wss://room.example").unwrap();
        let proxy = proxies(&[("https_proxy", proxy)]).for_url(&url).unwrap().unwrap();
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let serve = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            far.write_all(reply.as_bytes()).await.unwrap();
            (String::from_utf8(head).unwrap(), far)
        };
        let ((head, far), made) = tokio::join!(serve, proxy.tunnel(Box::new(near), "room.example", 443));
        // What is sent into the tunnel arrives at the other end of it.
        if let Ok(mut tunnel) = made {
            let mut far = far;
            tunnel.write_all(b"through").await.unwrap();
            let mut heard = [0; 7];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"through");
            return (head, Ok(tunnel));
        }
        (head, made)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_the_login_and_loses_no_byte() {
        let reply = "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nfirst";
        let (head, tunnel) = ask("http://me:a%40b@p:1", reply).await;
        assert!(head.starts_with("CONNECT room.example:443 HTTP/1.1\r\n"), "{head}");
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains("host: room.example:443\r\n"), "{head}");
        // base64 of `me:a@b`.
        assert!(head.contains("Basic bWU6YUBi\r\n") && lower.contains("proxy-authorization: "), "{head}");
        let mut early = [0; 5];
        tunnel.unwrap().read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"first", "what the server says at once belongs to the tunnel");
        let (head, tunnel) = ask("p:1", "HTTP/1.0 200 OK\r\n\r\n").await;
        assert!(tunnel.is_ok() && !head.to_ascii_lowercase().contains("authorization"), "{head}");
    }

    #[tokio::test]
    async fn refusals_are_told_apart_and_show_no_password() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MAX_ANSWER * 2));
        for (reply, status, word) in [
            ("HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n", Some(407), "refuses the user"),
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", Some(403), "does not allow"),
            ("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n", Some(503), "does not reach room.example:443"),
            ("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", Some(301), "HTTP 301"),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", None, "no answer of an HTTP proxy"),
            (&long, None, "no answer of an HTTP proxy"),
        ] {
            let (_, made) = ask("http://me:hush@p:1", reply).await;
            let error = made.err().unwrap();
            let Error::Proxy { proxy, status: found, .. } = &error else { panic!("{error:?}") };
            assert_eq!((proxy.as_str(), *found), ("http://p:1", status));
            let text = format!("{error} {error:?}");
            assert!(text.contains(word) && !text.contains("hush") && !text.contains("bWU6"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_says_nothing_is_not_waited_for_without_end() {
        let url = url::Url::parse("wss://room.example").unwrap();
        let mut proxy = proxies(&[("all_proxy", "p:1")]).for_url(&url).unwrap().unwrap();
        proxy.patience = Duration::from_millis(20);
        let (near, _far) = tokio::io::duplex(1024);
        let error = proxy.tunnel(Box::new(near), "room.example", 443).await.err().unwrap();
        assert!(error.to_string().contains("does not say within"), "{error}");
    }
}
