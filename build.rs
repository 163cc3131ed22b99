//! Bindings of DPDK's environment, with the feature `dpdk`. Without it there is nothing to do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    dpdk::bind();
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::env;
    use std::path::PathBuf;

    /// What is bound: memory and VFIO of the environment abstraction layer, and nothing else of DPDK.
    const FUNCTIONS: &[&str] = &[
        "rte_eal_init",
        "rte_eal_iova_mode",
        "rte_memzone_reserve_aligned",
        "rte_memzone_free",
        "rte_mem_virt2iova",
        "rte_vfio_container_create",
        "rte_vfio_container_destroy",
        "rte_vfio_container_dma_map",
        "rte_vfio_container_dma_unmap",
        "rte_vfio_container_group_bind",
        "rte_vfio_release_device",
        "rte_vfio_setup_device",
    ];

    pub fn bind() {
        let header = "src/memory/dpdk/wrapper.h";
        println!("cargo::rerun-if-changed={header}");
        let library = pkg_config::Config::new()
            .atleast_version("22.11")
            .cargo_metadata(false)
            .probe("libdpdk");
        let library = library.unwrap_or_else(|error| {
            panic!(
                "the feature dpdk needs DPDK 22.11 or newer; on Debian: \
                 apt-get install libdpdk-dev libclang-dev pkg-config\n{error}"
            )
        });
        // Of its many libraries, the one that has the environment.
        for path in &library.link_paths {
            println!("cargo::rustc-link-search=native={}", path.display());
        }
        println!("cargo::rustc-link-lib=dylib=rte_eal");
        let includes = library.include_paths.iter();
        let mut bindings = bindgen::Builder::default()
            .header(header)
            .clang_args(includes.map(|path| format!("-I{}", path.display())))
            .clang_args(["-include", "rte_config.h", "-march=corei7"].iter().take(
                match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
                    Ok("x86_64") => 3,
                    _ => 2,
                },
            ))
            .allowlist_type("rte_memzone")
            .allowlist_type("rte_iova_mode")
            .allowlist_var("RTE_MEMZONE_IOVA_CONTIG")
            .allowlist_var("SOCKET_ID_ANY")
            .default_enum_style(bindgen::EnumVariation::ModuleConsts)
            .generate_comments(false)
            .layout_tests(true);
        for function in FUNCTIONS {
            bindings = bindings.allowlist_function(function);
        }
        let bindings = bindings
            .generate()
            .expect("DPDK's headers can be read by libclang");
        let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
        bindings
            .write_to_file(out.join("dpdk.rs"))
            .expect("the build directory can be written to");
    }
}
