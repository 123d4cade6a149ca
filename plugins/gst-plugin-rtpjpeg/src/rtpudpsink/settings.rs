// SPDX-License-Identifier: MPL-2.0

//! Properties of the sink and their defaults.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::SocketFamily;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub host: String,
    pub port: u16,
    pub bind_address: Option<String>,
    pub bind_port: u16,
    /// −1 = as the system does.
    pub qos_dscp: i32,
    pub ttl: u32,
    pub ttl_mc: u32,
    pub multicast_loop: bool,
    pub multicast_iface: Option<String>,
    /// 0 = as the system does.
    pub buffer_size: u32,
    /// Bit/s; 0 = no pacing.
    pub max_pacing_rate: u64,
    pub socket_family: SocketFamily,
    pub gso: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            // RFC 3551 §8.
            port: 5004,
            bind_address: None,
            bind_port: 0,
            qos_dscp: -1,
            ttl: 64,
            ttl_mc: 1,
            multicast_loop: true,
            multicast_iface: None,
            buffer_size: 0,
            max_pacing_rate: 0,
            socket_family: SocketFamily::default(),
            gso: true,
        }
    }
}

impl Settings {
    /// Sets a property.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        let port = |value: &glib::Value| value.get::<i32>().ok().and_then(|port| u16::try_from(port).ok());
        match name {
            "host" => self.host = text(value).unwrap_or_else(|| Self::default().host),
            "port" => self.port = port(value).unwrap_or(self.port),
            "bind-address" => self.bind_address = text(value),
            "bind-port" => self.bind_port = port(value).unwrap_or(self.bind_port),
            "qos-dscp" => self.qos_dscp = value.get().unwrap_or(self.qos_dscp),
            "ttl" => self.ttl = value.get().unwrap_or(self.ttl),
            "ttl-mc" => self.ttl_mc = value.get().unwrap_or(self.ttl_mc),
            "loop" => self.multicast_loop = value.get().unwrap_or(self.multicast_loop),
            "multicast-iface" => self.multicast_iface = text(value),
            "buffer-size" => self.buffer_size = value.get().unwrap_or(self.buffer_size),
            "max-pacing-rate" => self.max_pacing_rate = value.get().unwrap_or(self.max_pacing_rate),
            "socket-family" => self.socket_family = value.get().unwrap_or_default(),
            "gso" => self.gso = value.get().unwrap_or(self.gso),
            _ => {}
        }
    }

    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "host" => self.host.to_value(),
            "port" => i32::from(self.port).to_value(),
            "bind-address" => self.bind_address.to_value(),
            "bind-port" => i32::from(self.bind_port).to_value(),
            "qos-dscp" => self.qos_dscp.to_value(),
            "ttl" => self.ttl.to_value(),
            "ttl-mc" => self.ttl_mc.to_value(),
            "loop" => self.multicast_loop.to_value(),
            "multicast-iface" => self.multicast_iface.to_value(),
            "buffer-size" => self.buffer_size.to_value(),
            "max-pacing-rate" => self.max_pacing_rate.to_value(),
            "socket-family" => self.socket_family.to_value(),
            "gso" => self.gso.to_value(),
            _ => return None,
        })
    }
}

fn text(value: &glib::Value) -> Option<String> {
    value.get::<Option<String>>().ok().flatten().filter(|text| !text.is_empty())
}

/// The properties, for registration.
pub(crate) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        let port = |name: &str, nick: &str, blurb: &str, minimum: i32, default: u16| {
            glib::ParamSpecInt::builder(name)
                .nick(nick)
                .blurb(blurb)
                .minimum(minimum)
                .maximum(65535)
                .default_value(default.into())
                .mutable_ready()
                .build()
        };
        let hops = |name: &str, nick: &str, blurb: &str, default: u32| {
            glib::ParamSpecUInt::builder(name)
                .nick(nick)
                .blurb(blurb)
                .minimum(1)
                .maximum(255)
                .default_value(default)
                .mutable_ready()
                .build()
        };
        vec![
            glib::ParamSpecString::builder("host")
                .nick("Host")
                .blurb("Name or address of the receiver, or a multicast group")
                .default_value(Some(default.host.as_str()))
                .mutable_ready()
                .build(),
            port("port", "Port", "Port of the receiver", 1, default.port),
            glib::ParamSpecString::builder("bind-address")
                .nick("Bind address")
                .blurb("Address to send from (unset = the system chooses)")
                .mutable_ready()
                .build(),
            port("bind-port", "Bind port", "Port to send from (0 = the system chooses)", 0, default.bind_port),
            glib::ParamSpecInt::builder("qos-dscp")
                .nick("QoS DSCP")
                .blurb("Differentiated services code point of the packets (-1 = the system's)")
                .minimum(-1)
                .maximum(63)
                .default_value(default.qos_dscp)
                .mutable_ready()
                .build(),
            hops("ttl", "TTL", "Hops that packets to a single receiver may take", default.ttl),
            hops("ttl-mc", "Multicast TTL", "Hops that packets to a multicast group may take", default.ttl_mc),
            glib::ParamSpecBoolean::builder("loop")
                .nick("Multicast loop")
                .blurb("Whether receivers on this machine get multicast packets, too")
                .default_value(default.multicast_loop)
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("multicast-iface")
                .nick("Multicast interface")
                .blurb("Network interface that multicast packets leave by, such as eth0 (unset = the system chooses)")
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("buffer-size")
                .nick("Buffer size")
                .blurb("Size of the kernel's send buffer in bytes (0 = the system's)")
                .default_value(default.buffer_size)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt64::builder("max-pacing-rate")
                .nick("Maximum pacing rate")
                .blurb(
                    "Rate at which the packets of a frame leave, in trains of at most 16 and within half a frame interval \
                     (bit/s, 0 = all at once)",
                )
                .default_value(default.max_pacing_rate)
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder_with_default("socket-family", default.socket_family)
                .nick("Socket family")
                .blurb("Version of IP to use where host has addresses of both")
                .mutable_ready()
                .build(),
            glib::ParamSpecBoolean::builder("gso")
                .nick("Segmentation offload")
                .blurb("Whether equally long packets may leave in one system call by UDP segmentation offload")
                .default_value(default.gso)
                .mutable_ready()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("Packets, bytes and system calls, drops and errors")
                .read_only()
                .build(),
        ]
    });
    &PROPERTIES
}
