"""Settings are checked at the start, and say what is wrong with them."""

import pytest

from shared.object_store import WORKER_PATIENCE
from shared.services import from_settings
from shared.settings import Settings, read_settings


def test_nothing_needs_to_be_set() -> None:
    """Every setting has a default that works on one machine."""
    settings = Settings()
    assert settings.models_bucket == settings.s3_bucket


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass empty ones on."""
    monkeypatch.setenv("MAX_BATCH_SIZE", "")
    assert read_settings(Settings).max_batch_size == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BATCH_SIZE", "0"),
        ("MAX_BATCH_SIZE", "many"),
        ("LEASE_SECONDS", "-1"),
        ("RESULT_RETENTION_SECONDS", "inf"),
        ("RESULT_RETENTION_SECONDS", "1e12"),
        ("JOB_EXPIRES_SECONDS", "999999999999"),
        ("ENGINE_TIMEOUT_SECONDS", "inf"),
        ("LOG_LEVEL", "LOUD"),
        ("MODEL_NAME", "../other"),
        ("S3_ENDPOINT_URL", "s3.example.org"),
        ("S3_ENDPOINT_URL", "https://key:secret@s3.example.org"),
        ("S3_ENDPOINT_URL", "http://object_store:9000"),
        ("S3_ENDPOINT_URL", "http://s3.example.org:90000"),
        ("S3_ENDPOINT_URL", "http://s3.example.org:x"),
        ("S3_ENDPOINT_URL", "http://s3.example.org/path"),
        ("S3_ENDPOINT_URL", "http://[::x]:9000"),
        ("S3_BUCKET", "our tiles"),
        ("S3_BUCKET", ".partial"),
        ("S3_BUCKET", "../elsewhere"),
        ("S3_CA_FILE", "/nowhere/ca.pem"),
        ("S3_PREFIX", "no-slash"),
        ("S3_PREFIX", "/first/"),
        ("S3_ENCRYPTION", "rot13"),
        ("MODEL_BUCKET", "x"),
        ("WEBHOOK_SECRET", "secret"),
        ("WEBHOOK_SECRET", "whsec_c2hvcnQ="),
        ("WEBHOOK_SECRET", "whsec_" + "A" * 32 + " whsec_*"),
        ("WEBHOOK_ALLOW_CIDRS", "10.0.0.1/8"),
        ("WEBHOOK_RETRY_SECONDS", "10,soon"),
    ],
)
def test_a_bad_value_ends_the_program_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The line names the variable."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        read_settings(Settings)
    text = str(ended.value)
    assert text.startswith(f"error: {name}: ")
    assert "\n" not in text


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9000", "https://s3.eu-central-1.amazonaws.com/", "http://store", "http://[::1]:9000"],
)
def test_an_address_that_is_taken_is_one_that_boto3_takes(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """What it does not take it says in a traceback."""
    monkeypatch.setenv("S3_ENDPOINT_URL", address)
    monkeypatch.setenv("OBJECT_STORE_DIR", "")
    from_settings(read_settings(Settings), WORKER_PATIENCE)


def test_half_of_a_key_ends_the_program_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does a profile that is not there."""
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("OBJECT_STORE_DIR", "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(SystemExit, match=r"^error: .+missing: AWS_SECRET_ACCESS_KEY$"):
        from_settings(read_settings(Settings), WORKER_PATIENCE)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SystemExit, match=r"^error: .+profile \(nobody\) could not be found$"):
        from_settings(read_settings(Settings), WORKER_PATIENCE)


@pytest.mark.parametrize("place", ["/nowhere", __file__])
def test_a_folder_of_secrets_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Without it the servers would be asked without a password."""
    monkeypatch.setenv("SECRETS_DIR", place)
    with pytest.raises(SystemExit, match=r"^error: SECRETS_DIR: expected a folder\. Received: "):
        read_settings(Settings)


def test_every_bad_value_is_named_and_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password may stand in an address that is wrong."""
    monkeypatch.setenv("REDIS_URL", "http://:hunter2@example.org")
    monkeypatch.setenv("MAX_WAITERS", "-1")
    with pytest.raises(SystemExit) as ended:
        read_settings(Settings)
    assert {line.split(":")[1].strip() for line in str(ended.value).splitlines()} == {
        "REDIS_URL",
        "MAX_WAITERS",
    }
    assert "hunter2" not in str(ended.value)


def test_an_image_is_not_kept_longer_than_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record names the image: it must not go first."""
    monkeypatch.setenv("IMAGE_RETENTION_SECONDS", "100")
    monkeypatch.setenv("RESULT_RETENTION_SECONDS", "99")
    with pytest.raises(SystemExit, match="IMAGE_RETENTION_SECONDS"):
        read_settings(Settings)


def test_the_engine_is_given_less_time_than_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job would be run by the next worker, and the next, while it is still at it."""
    monkeypatch.setenv("ENGINE_TIMEOUT_SECONDS", "300")
    with pytest.raises(SystemExit, match="less than MAX_RUN_SECONDS"):
        read_settings(Settings)


def test_the_password_is_not_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings can be logged."""
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@127.0.0.1:6379/0")
    assert "hunter2" not in repr(read_settings(Settings))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("S3_KMS_KEY_ID", "our-key", "S3_ENCRYPTION"), ("MODEL_PREFIX", "m/", "MODEL_BUCKET")],
)
def test_half_of_a_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """It would be ignored in silence."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=said):
        read_settings(Settings)


@pytest.mark.parametrize("runtime", ["onnxruntime", "mnn"])
def test_a_runtime_for_processors_does_not_go_with_a_gpu(
    monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    """One of the two would be ignored in silence."""
    monkeypatch.setenv("REQUIRE_GPU", "true")
    assert read_settings(Settings).require_gpu
    monkeypatch.setenv("INFERENCE_RUNTIME", runtime)
    with pytest.raises(SystemExit, match="REQUIRE_GPU"):
        read_settings(Settings)


def test_a_folder_has_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a prefix itself."""
    monkeypatch.setenv("OBJECT_STORE_DIR", "/data")
    monkeypatch.setenv("S3_PREFIX", "lab/")
    with pytest.raises(SystemExit, match="OBJECT_STORE_DIR"):
        read_settings(Settings)


def test_models_beside_a_folder_have_a_prefix_on_an_s3_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an endpoint the models come from there."""
    monkeypatch.delenv("S3_ENDPOINT_URL", raising=False)
    for name, value in (("OBJECT_STORE_DIR", "/data"), ("MODEL_BUCKET", "models"), ("MODEL_PREFIX", "m/")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="S3_ENDPOINT_URL"):
        read_settings(Settings)
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert not read_settings(Settings).has_models_in_folder


def test_the_models_lie_under_the_prefix_of_their_own_bucket() -> None:
    """That of the uploads, unless they have a bucket of their own."""
    assert Settings(s3_prefix="lab/").models_prefix == "lab/"
    assert Settings(s3_prefix="lab/", model_bucket="models").models_prefix == ""
    assert Settings(s3_prefix="lab/", model_bucket="models", model_prefix="m/").models_prefix == "m/"
