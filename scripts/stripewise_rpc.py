"""Teaches SPDK's rpc.py the methods that Stripewise has and SPDK has not.

    PYTHONPATH=scripts rpc.py --plugin stripewise_rpc bdev_raid_check demo repair

Parameters that must be given are positional, others are options. A value that is JSON is taken as such, and as text
otherwise; names of devices may be written as one word with spaces between. stripewise_raid_create is bdev_raid_create
with the parameters that SPDK's does not take.
"""

import json

# Methods and their parameters; those that may be left out end in a question mark. A test of Stripewise keeps it true.
METHODS = json.loads(r'''{
    "bdev_raid_accept_parity": ["name"],
    "bdev_raid_add_spare": ["raid_bdev", "base_bdev", "force?"],
    "bdev_raid_assemble": ["uuid?", "name?", "base_bdevs?", "force?"],
    "bdev_raid_check": ["name", "action"],
    "bdev_raid_examine": ["name"],
    "bdev_raid_remove_spare": ["raid_bdev", "base_bdev"],
    "bdev_raid_replace_base_bdev": ["name", "base_bdev", "force?"],
    "bdev_raid_set_policy": ["name?", "uuid?", "consistency_policy", "bitmap_chunk_kb?"],
    "bdev_raid_set_tuning": ["name", "stripe_size_kb?", "shard_run?", "batching?"],
    "nvmf_subsystem_set_event_log": ["nqn", "file?", "size_kb?", "tgt_name?"],
    "stripewise_raid_create": ["name", "strip_size_kb", "raid_level", "base_bdevs", "uuid?", "superblock?", "layout?", "stripe_size_kb?", "shard_run?", "batching?", "consistency_policy?", "bitmap_chunk_kb?", "assume_clean?", "spares?", "force?"]
}''')

# Commands that rpc.py has under the name of the method.
CALLED = {"stripewise_raid_create": "bdev_raid_create"}

# Parameters that are lists of names.
LISTS = {"base_bdevs", "spares"}


def value(name, text):
    """What a parameter is called with."""
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = text
    if name in LISTS and not isinstance(parsed, list):
        return text.split()
    return parsed


def caller(command, names):
    """What rpc.py runs for a command."""

    def call(args):
        given = {name: getattr(args, name) for name in names}
        params = {name: value(name, text) for name, text in given.items() if text is not None}
        result = args.client.call(CALLED.get(command, command), params)
        print(json.dumps(result, indent=2))

    return call


def spdk_rpc_plugin_initialize(subparsers):
    """Called by rpc.py."""
    for command, params in METHODS.items():
        parser = subparsers.add_parser(command, help="a method of Stripewise; docs/rpc.md describes it")
        for param in params:
            name = param.rstrip("?")
            if param.endswith("?"):
                parser.add_argument("--" + name.replace("_", "-"), dest=name)
            else:
                parser.add_argument(name)
        parser.set_defaults(func=caller(command, [param.rstrip("?") for param in params]))
