"""The configuration that Stripewise and SPDK serve: four RAM members with RAID5, and another RAM device, each a namespace."""

NQN = "nqn.2026-11.io.stripewise:perf"
MEMBERS, MIB, BLOCK, STRIP_KIB = 4, 256, 4096, 64
ROW_KIB = (MEMBERS - 1) * STRIP_KIB
ARRAY, PLAIN = 1, 2  # namespaces


def _malloc(name, mib=MIB):
    return ("bdev_malloc_create", {"name": name, "num_blocks": (mib << 20) // BLOCK, "block_size": BLOCK})


def bdev_calls(level, mib=MIB, plain=True, more=None):
    """The devices; `level` is raid5 or, in SPDK, raid5f; `more` are parameters of the array."""
    names = [f"m{i}" for i in range(MEMBERS)]
    calls = [_malloc(name, mib) for name in names]
    raid = {"name": "array", "raid_level": level, "strip_size_kb": STRIP_KIB, "base_bdevs": names, **(more or {})}
    return [*calls, ("bdev_raid_create", raid), *([_malloc("plain")] if plain else [])]


def nvmf_calls(port, plain=True):
    """The target, with a listener at a port of loopback."""
    address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(port)}
    namespaces = [
        ("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": name, "nsid": nsid}})
        for name, nsid in (("array", ARRAY), *([("plain", PLAIN)] if plain else []))
    ]
    return [
        # Requests of a whole row of 192 KiB, which raid5f insists on, and more.
        ("nvmf_create_transport", {"trtype": "TCP", "max_queue_depth": 256, "max_io_size": 1 << 20}),
        ("nvmf_create_subsystem", {"nqn": NQN, "serial_number": "PERF", "allow_any_host": True}),
        *namespaces,
        ("nvmf_subsystem_add_listener", {"nqn": NQN, "listen_address": address}),
    ]


def configuration(level, port=None, extra=(), plain=True, more=None):
    """As a file of subsystems; without a port it has no target, nor the plain device."""
    plain = plain and port is not None
    subsystems = {"bdev": [*bdev_calls(level, plain=plain, more=more), *extra]}
    if port is not None:
        subsystems["nvmf"] = nvmf_calls(port, plain)
    return {
        "subsystems": [
            {"subsystem": name, "config": [{"method": method, "params": params} for method, params in calls]}
            for name, calls in subsystems.items()
        ]
    }
