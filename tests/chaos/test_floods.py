"""Users flood the platform in every way there is: everybody else's sagas end, evidence stays, processes live."""

from __future__ import annotations

import asyncio
from pathlib import Path

from .flooded import Rested, rests
from .floods import KINDS, buying, complain, flooding, parked, running

COUNT = 300
ORDERS = 40


async def test_a_flood_of_any_kind_keeps_nobody_elses_saga_from_its_end(tmp_path: Path) -> None:
    async with running(tmp_path) as there, buying(there) as orders:
        await complain(there, "billing", 1)
        await parked(there, ".billing")
        evidence = await there.evidence()
        victim = await orders.antiphon.start(rests, Rested(), id="victim")
        floods = [flooding(there.up, name, COUNT, victim.key) for name in KINDS]
        publishing = asyncio.gather(*floods)
        for number in range(ORDERS // 2):
            orders.begin(number, 0.0)
        await publishing
        for number in range(ORDERS // 2, ORDERS):
            orders.begin(number, 0.0)
        await complain(there, "shipping", 2)
        async with asyncio.timeout(150):
            await asyncio.gather(*orders.under_way)
            assert [took for _, took in orders.taken if took == float("inf")] == []
            assert len(orders.taken) == ORDERS
            await victim.result()
            await parked(there, ".shipping")
        assert evidence <= await there.evidence()
        assert there.died == []
