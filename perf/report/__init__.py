"""Measuring Stripewise beside its peers: works, rounds, results, and the page that shows them.

A *subject* is who works (`engine`, `target+ppl`, `md`, `SPDK engine`), a *work* is what it does, in fio's words
(`randwrite-4k-qd32`), a *sample* is what came of it in one round. `stands` start subjects and measure them, `rounds` takes
turns among stands, `results` keeps what was measured, `ratios` and `judgement` say what it means, `page` shows it.
"""
