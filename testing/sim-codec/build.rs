// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compiles the shim over libavcodec, so that structure layouts come from the installed headers.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=src/shim.c");
    println!("cargo:rerun-if-changed=src/shim.h");
    let mut build = cc::Build::new();
    // libavcodec 59 is FFmpeg 5.1 (Debian 12).
    for (library, version) in [("libavcodec", "59"), ("libavutil", "57")] {
        let found = pkg_config::Config::new().atleast_version(version).probe(library).map_err(|e| {
            format!("{library} {version} or newer is needed (Debian: apt-get install libavcodec-dev libavutil-dev): {e}")
        })?;
        build.includes(found.include_paths);
    }
    build
        .file("src/shim.c")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(false)
        .compile("simcodec");
    Ok(())
}
