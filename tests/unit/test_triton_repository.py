"""The model repository is production's own: Triton accepts it, it names what production runs."""

from __future__ import annotations

import json
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

MODEL = Path(__file__).resolve().parents[2] / "ops" / "triton" / "models" / "gpt-oss-20b"


def test_the_configuration_is_what_triton_parses_and_vllm_needs() -> None:
    config = text_format.Parse((MODEL / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.backend == "vllm"
    assert config.model_transaction_policy.decoupled
    kinds = [group.kind for group in config.instance_group]
    assert kinds == [model_config_pb2.ModelInstanceGroup.KIND_MODEL]
    assert config.parameters["REPORT_CUSTOM_METRICS"].string_value == "true"


def test_the_engine_loads_gpt_oss() -> None:
    engine = json.loads((MODEL / "1" / "model.json").read_text())
    assert engine["model"] == "openai/gpt-oss-20b"
    assert 0 < engine["gpu_memory_utilization"] < 1
