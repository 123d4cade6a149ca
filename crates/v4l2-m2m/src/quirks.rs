// SPDX-License-Identifier: MIT OR Apache-2.0

//! What single drivers do otherwise than the interface says, as read in their sources and reports.

/// Departures of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quirks {
    /// The control BITRATE is accepted while streaming and has no effect before the device is opened anew.
    pub bitrate_needs_reopen: bool,
    /// S_PARM is accepted while streaming and has no effect.
    pub rate_needs_restart: bool,
    /// GOP_SIZE is accepted while streaming and has no effect.
    pub gop_needs_restart: bool,
}

/// Looks a driver up by the name that QUERYCAP gives.
#[must_use]
pub fn of(driver: &str) -> Quirks {
    match driver {
        // TI, StarFive: controls are read when the instance is opened. No FORCE_KEY_FRAME.
        "wave5-enc" | "wave5" | "vpu-enc" => {
            Quirks { bitrate_needs_reopen: true, rate_needs_restart: true, gop_needs_restart: true }
        }
        // Qualcomm: a runtime S_PARM is stored only.
        "qcom-venus" | "venus" | "iris_driver" | "qcom-iris" => {
            Quirks { rate_needs_restart: true, gop_needs_restart: true, ..Quirks::default() }
        }
        // Raspberry Pi: all of these work while streaming.
        "bcm2835-codec" => Quirks::default(),
        // The kernel's virtual codec reads its GOP size for every frame.
        "vicodec" => Quirks::default(),
        _ => Quirks::default(),
    }
}
