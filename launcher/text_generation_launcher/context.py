"""What one launch was asked for and found on this host. Decides nothing."""

from dataclasses import dataclass

from text_generation_launcher.hardware import Hardware
from text_generation_launcher.options import EMBEDDED, Options
from text_generation_launcher.programs import Programs
from text_generation_launcher.settings import Environment


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """Fixed before the first process starts; `given` names the options that did not take their default."""

    options: Options
    given: frozenset[str]
    environment: Environment
    programs: Programs
    hardware: Hardware

    @property
    def embedded_router(self) -> bool:
        """Whether the router is ours."""
        return self.options.router == EMBEDDED
