"""What `bench.ablation` changes, one thing each: of the raw loop and of our engine.

A change is tried here before it is the product's. Some are here to show what a thing costs, and
are never to be the product's: those say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.page import CHROMIUM

#: The browser itself; what Debian has in PATH is a shell script that waits for it.
ELF = "/usr/lib/chromium/chromium-headless-shell"
#: What the driver gives Chromium as --disable-features: a second list takes the first one's place.
_DRIVER_DISABLES = (
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "PreconnectToSearch",
)


@dataclass(frozen=True)
class Variant:
    """One who does jobs; each field that is not its default is the change."""

    by: Literal["raw", "engine"]
    executable: str = CHROMIUM
    #: Arguments beside the product's.
    arguments: tuple[str, ...] = ()
    #: How the raw loop takes its picture: as the driver does, or by one call of the protocol, whose
    #: own encoder may be told to be fast rather than thorough.
    picture: Literal["driver", "protocol", "fast", "none"] = "driver"
    #: Options of the driver's picture.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Of the raw loop: each job's context and page are opened while the one before it works.
    prepared: bool = False
    #: Of the engine: what is left out, by the names of `bench.ablated`.
    without: tuple[str, ...] = ()


_SPARE = f"--disable-features={','.join((*_DRIVER_DISABLES, 'SpareRendererForSitePerProcess'))}"
_LEGACY = "--enable-features=SkipListAccountsWithoutGaiaCookies"

VARIANTS: Mapping[str, Variant] = {
    "raw": Variant("raw"),
    # The browser.
    "raw-elf": Variant("raw", executable=ELF),
    "raw-no-spare-renderer": Variant("raw", arguments=(_SPARE,)),
    "raw-no-gpu": Variant("raw", arguments=("--disable-gpu", "--disable-software-rasterizer")),
    "raw-one-raster-thread": Variant("raw", arguments=("--num-raster-threads=1",)),
    # The picture.
    "raw-picture-of-old-surface": Variant("raw", arguments=(_LEGACY,)),
    "raw-picture-with-caret": Variant("raw", options={"caret": "initial"}),
    "raw-picture-by-protocol": Variant("raw", picture="protocol"),
    "raw-picture-by-protocol-fast": Variant("raw", picture="fast"),
    "raw-jpeg": Variant("raw", options={"type": "jpeg"}),
    # What the picture costs.
    "raw-no-picture": Variant("raw", picture="none"),
    # The context.
    "raw-prepared": Variant("raw", prepared=True),
    # Ours.
    "engine": Variant("engine"),
    "engine-elf": Variant("engine", executable=ELF),
    "engine-no-spare-renderer": Variant("engine", arguments=(_SPARE,)),
    # Pages read and pictured by Playwright, as the raw loop does it.
    "engine-by-playwright": Variant("engine", without=("devtools",)),
    # What these cost: counts, bounds and the console are promised.
    "engine-no-listeners": Variant("engine", without=("listeners",)),
    "engine-no-niceness": Variant("engine", without=("niceness",)),
}
#: What each is compared with.
BASES: Mapping[str, str] = {
    name: variant.by for name, variant in VARIANTS.items() if name != variant.by
} | {"engine": "raw"}
