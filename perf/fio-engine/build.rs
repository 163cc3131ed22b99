//! Bindings of fio's engine interface, from the headers of a configured source tree of fio.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/wrapper.h");
    println!("cargo::rerun-if-env-changed=FIO_SOURCE");
    let source = env::var("FIO_SOURCE").unwrap_or_else(|_| {
        panic!(
            "FIO_SOURCE must name a configured source tree of fio; perf/fio-engine/build makes one"
        )
    });
    println!("cargo::rerun-if-changed={source}/config-host.h");
    let version = fs::read_to_string(format!("{source}/FIO-VERSION-FILE"))
        .unwrap_or_else(|error| panic!("{source}/FIO-VERSION-FILE: {error}"));
    let version = version.trim().trim_start_matches("FIO_VERSION = ");
    println!("cargo::rustc-env=FIO_VERSION={version}");
    let bindings = bindgen::Builder::default()
        .header("src/wrapper.h")
        .clang_args([
            "-D_GNU_SOURCE",
            "-include",
            &format!("{source}/config-host.h"),
            &format!("-I{source}"),
        ])
        .allowlist_type("thread_data")
        .allowlist_type("io_u")
        .allowlist_type("fio_file")
        .allowlist_type("ioengine_ops")
        .allowlist_type("fio_option")
        .allowlist_type("fio_q_status")
        .allowlist_type("fio_ddir")
        .allowlist_type("fio_filetype")
        .allowlist_type("fio_ioengine_flags")
        .allowlist_type("opt_category")
        .allowlist_type("opt_category_group")
        .allowlist_type("fio_opt_type")
        .allowlist_var("FIO_IOOPS_VERSION")
        // Its alignments are beyond bindgen, and an engine has no business in it.
        .opaque_type("thread_stat")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_debug(false)
        .generate_comments(false)
        .wrap_unsafe_ops(true)
        .layout_tests(true)
        .generate()
        .expect("fio's headers can be read by libclang");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    bindings
        .write_to_file(out.join("fio.rs"))
        .expect("the build directory can be written to");
}
