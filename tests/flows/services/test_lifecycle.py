"""Starting, finding and stopping, with small programs in place of the services."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable

import pytest

from flows.services import processes
from flows.services.config import LOOPBACK, ServiceSettings
from flows.services.discover import use_running
from flows.services.lifecycle import down, up
from flows.services.report import status
from flows.services.state import NAMES, Name, ServicesState, read_state, state_path, write_state
from flows.services.store import postgres_mark
from flows.settings import Home
from flows.tracking import connect, store_exists
from gnn.errors import InputError, SluiceError

pytestmark = pytest.mark.slow
Fakes = Callable[..., None]


def running(state: ServicesState) -> int:
    return sum(len(processes.family(started.token)) for started in state.services.values())


def test_up_starts_all_and_down_leaves_nothing(started_home: Home, ports: dict[str, int], use_fakes: Fakes) -> None:
    use_fakes()
    told: list[str] = []
    state, started = up(started_home, ports, 60, told.append)
    assert started == list(NAMES)
    assert len(told) == len(NAMES)
    assert running(state) == 9  # four servers with a child each, and the worker
    assert read_state(started_home) == state
    stopped, count = down(started_home)
    assert (sorted(stopped), count) == (sorted(NAMES), 9)
    assert stopped[0] == "worker"
    assert running(state) == 0
    assert read_state(started_home) is None
    assert down(started_home) == ([], 0)


def test_up_twice_starts_nothing_twice(started_home: Home, ports: dict[str, int], use_fakes: Fakes) -> None:
    use_fakes()
    first, _ = up(started_home, ports, 60)
    again, started = up(started_home, {}, 60)
    assert started == []
    assert again == first


def test_what_died_is_started_again_and_nothing_else(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes, until: Callable[..., None]
) -> None:
    use_fakes()
    first, _ = up(started_home, ports, 60)
    victim = first.services["mlflow"]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(victim.pid, victim.token))
    found = status(started_home, 0)
    assert [row.health for row in found.services if row.name == "mlflow"] == ["ended"]
    assert found.notes  # the small Prefect does not know its queues: told, and the rest is shown all the same
    again, started = up(started_home, {}, 60)
    assert started == ["mlflow"]
    assert processes.family(victim.token) == []  # its orphan ended too
    assert {n: s for n, s in again.services.items() if n != "mlflow"} == {
        n: s for n, s in first.services.items() if n != "mlflow"
    }


def test_two_at_once_start_one_set(started_home: Home, ports: dict[str, int], use_fakes: Fakes) -> None:
    use_fakes()
    results: list[list[Name]] = []
    threads = [threading.Thread(target=lambda: results.append(up(started_home, ports, 60)[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, results)) == [0, len(NAMES)]


def test_a_taken_port_is_told_before_anything_starts(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes
) -> None:
    use_fakes()
    with socket.socket() as other:
        other.bind((LOOPBACK, ports["mlflow_port"]))
        other.listen()
        with pytest.raises(InputError, match=f"port {ports['mlflow_port']} for mlflow .* give --mlflow-port"):
            up(started_home, ports, 60)
    assert read_state(started_home) is None


def test_other_settings_than_those_that_run(started_home: Home, ports: dict[str, int], use_fakes: Fakes) -> None:
    use_fakes()
    up(started_home, ports, 60)
    with pytest.raises(InputError, match=r"other settings \(runs 4, not 9\); first `sluice down`"):
        up(started_home, {"runs": 9}, 60)


@pytest.fixture
def guarded_home(started_home: Home, ports: dict[str, int], use_fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose services run with a password that the shell no longer has."""
    use_fakes()
    monkeypatch.setenv("SLUICE_AUTH", "ann:hunter22")
    up(started_home, ports, 60)
    monkeypatch.delenv("SLUICE_AUTH")
    return started_home


def test_a_running_home_does_not_lose_its_password(guarded_home: Home, ports: dict[str, int]) -> None:
    with pytest.raises(InputError, match="run with a password, and none is given"):
        up(guarded_home, ports, 60)


def test_a_program_that_ends_is_told_without_secrets(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_AUTH", "ann:hunter2!")
    use_fakes(failing=("mlflow",))
    with pytest.raises(SluiceError, match="mlflow ended while it started") as caught:
        up(started_home, ports, 60)
    assert "the database said no to password **********" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    use_fakes()
    state, _ = up(started_home, {}, 60)  # mended: the same command goes on
    assert running(state) == 9


def test_one_that_never_answers(started_home: Home, ports: dict[str, int], use_fakes: Fakes) -> None:
    use_fakes(silent=("dask",))
    with pytest.raises(SluiceError, match=r"not well after 3 s: .*dask: silent.*dask-workers: not started"):
        up(started_home, ports, 3)
    assert len(down(started_home)[0]) == 4


def test_a_start_that_was_cut_short_is_still_stopped(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes
) -> None:
    """Killed between starting a program and noting its number: the mark is on record before."""
    use_fakes()
    state, _ = up(started_home, ports, 60)
    cut = state.services["prefect"].model_copy(update={"pid": None})
    write_state(started_home, state.with_service(cut))
    assert down(started_home)[1] == 9
    assert running(state) == 0


def test_services_of_another_machine_are_left_alone(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes
) -> None:
    use_fakes()
    state, _ = up(started_home, ports, 60)
    write_state(started_home, state.model_copy(update={"machine": "another"}))
    assert use_running(started_home) == {}
    for act in (lambda: up(started_home, {}, 5), lambda: down(started_home), lambda: status(started_home, 1)):
        with pytest.raises(SluiceError, match="another"):
            act()
    assert running(state) == 9
    write_state(started_home, state)


def test_commands_use_what_runs(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fakes()
    assert use_running(started_home) == {}
    up(started_home, ports, 60)
    monkeypatch.setenv("SLUICE_CLUSTER", "local")
    told: list[str] = []
    found = use_running(started_home, told.append)
    assert told == []
    assert os.environ["PREFECT_API_URL"] == f"http://127.0.0.1:{ports['prefect_port']}/api"
    assert os.environ["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{ports['mlflow_port']}"
    assert os.environ["SLUICE_CLUSTER"] == "local"  # what the user said stays
    assert "SLUICE_CLUSTER" not in found


def test_no_secret_of_the_home_goes_to_another_server(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fakes()
    monkeypatch.setenv("SLUICE_AUTH", "ann:hunter22")
    up(started_home, ports, 60)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://runs.example.org")
    found = use_running(started_home)
    assert found["PREFECT_API_AUTH_STRING"] == "ann:hunter22"
    assert not {name for name in found if name.startswith("MLFLOW_")}
    for name in found:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{ports['mlflow_port']}")
    assert use_running(started_home)["MLFLOW_TRACKING_PASSWORD"] == "hunter22"


def test_a_host_that_is_none_of_this_machine_is_named(started_home: Home) -> None:
    with pytest.raises(InputError, match=r"prefect cannot listen at no\.such\.host\.invalid:.*give another --host"):
        up(started_home, {"host": "no.such.host.invalid", "auth_file": auth_file(started_home)}, 5)


def auth_file(home: Home) -> str:
    path = home.root / "auth"
    path.write_text("ann:hunter22")
    return str(path)


def test_commands_go_on_without_what_died(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes, until: Callable[..., None]
) -> None:
    use_fakes()
    state, _ = up(started_home, ports, 60)
    victim = state.services["mlflow"]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(victim.pid, victim.token))
    told: list[str] = []
    found = use_running(started_home, told.append)
    assert "MLFLOW_TRACKING_URI" not in found
    assert "PREFECT_API_URL" in found
    assert len(told) == 1
    assert "mlflow of this home does not run any more" in told[0]


def test_a_missing_password_is_told(guarded_home: Home) -> None:
    assert "hunter22" not in state_path(guarded_home).read_text()
    with pytest.raises(InputError, match="want a password"):
        use_running(guarded_home)


def test_a_damaged_record_stops_only_those_who_need_it(home: Home) -> None:
    home.services.mkdir(parents=True)
    state_path(home).write_text("{")
    told: list[str] = []
    assert use_running(home, told.append) == {}
    assert "damaged" in told[0]
    with pytest.raises(SluiceError, match="damaged"):
        down(home)


def test_a_home_on_postgres_begins_no_second_store(home: Home) -> None:
    home.services.mkdir(parents=True)
    postgres_mark(home).touch()
    for act in (lambda: connect(home), lambda: store_exists(home), lambda: up(home, {}, 1)):
        with pytest.raises(InputError, match="keeps its runs and models on PostgreSQL"):
            act()


def test_the_folder_is_private(home: Home, ports: dict[str, int]) -> None:
    from flows.services.state import make_folder

    make_folder(home)
    assert oct(home.services.stat().st_mode)[-3:] == "700"


def test_status_of_nothing(home: Home) -> None:
    assert status(home, 5).services == []
    assert ServiceSettings.model_validate(ServiceSettings().model_dump()) == ServiceSettings()


def test_dask_workers_begin_anew_with_their_scheduler(
    started_home: Home, ports: dict[str, int], use_fakes: Fakes, until: Callable[..., None]
) -> None:
    """They end some seconds after it: too late to be seen as dead, too early to be kept."""
    use_fakes()
    first, _ = up(started_home, ports, 60)
    victim = first.services["dask"]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(victim.pid, victim.token))
    again, started = up(started_home, {}, 60)
    assert started == ["dask", "dask-workers"]
    assert processes.family(first.services["dask-workers"].token) == []
    assert running(again) == 9
