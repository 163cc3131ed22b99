"""The network that a run has to itself."""

import subprocess
import unittest

from report.network import allowed, command, congestion


class OwnNetwork(unittest.TestCase):
    def test_it_has_its_own_congestion_control_and_a_loopback_that_is_up(self):
        before = congestion()
        look = "cat /proc/sys/net/ipv4/tcp_congestion_control; ip -brief address show lo"
        self.assertTrue(allowed())
        for algorithm in allowed():
            done = subprocess.run(command(algorithm, "sh", "-c", look), capture_output=True, text=True, check=True)
            said, loopback = done.stdout.splitlines()
            self.assertEqual(said, algorithm)
            self.assertIn("127.0.0.1", loopback)
        self.assertEqual(congestion(), before)

    def test_what_the_kernel_does_not_have_is_an_error(self):
        done = subprocess.run(command("none", "true"), capture_output=True, text=True, check=False)
        self.assertNotEqual(done.returncode, 0)
