"""The spans that promptflow's tracing makes of a run, if a variable says where they go: sent there, and kept with the run.

They are sent when a line has ended, without a thread: a process that has one cannot be forked.
"""

import os
import sys

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# The most spans of one line that are kept, and the most characters of one.
MOST, LONGEST = 1_000, 200_000


def begin(run):
    """Has promptflow's tracing make spans, if the run's variables name an endpoint; None if not."""
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    return Spans(run, endpoint) if endpoint else None


class Spans:
    def __init__(self, run, endpoint):
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from promptflow.tracing._integrations._openai_injector import inject_openai_api

        ended = self.ended = []

        class Keep(SpanProcessor):
            def on_end(self, span):
                ended.append(span)

        self.endpoint, self.exporter, self.is_broken = endpoint, None, False
        # Without it promptflow makes none.
        os.environ.setdefault("PF_DISABLE_TRACING", "false")
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or "promptflow", "run": run})
        provider = trace.get_tracer_provider()
        if isinstance(provider, TracerProvider):
            # It can be set once, and the runtime or the flow has. Its tracers have the processors that come to it later, too.
            provider._resource = provider.resource.merge(resource)
        else:
            provider = TracerProvider(resource=resource)
            trace.set_tracer_provider(provider)
        provider.add_span_processor(Keep())
        inject_openai_api()

    def take(self):
        """Sends the spans that have ended since. Returns them as JSON texts, as OpenTelemetry's SDK writes them."""
        spans = self.ended[:]
        self.ended.clear()
        if spans and not self.is_broken:
            try:
                self.send(spans)
            except Exception as error:  # noqa: BLE001
                self.stop(type(error).__name__)
        texts = [text for text in map(as_text, spans[:MOST]) if text]
        if len(texts) < len(spans):
            print(f"{len(spans) - len(texts)} of {len(spans)} spans of a line are not kept in the run's spans.jsonl, which has {MOST} of a line at most", file=sys.stderr, flush=True)
        return texts

    def send(self, spans):
        import logging

        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult

        if self.exporter is None:
            # What it logs comes with each try; one line says it.
            logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").setLevel(logging.CRITICAL)
            self.exporter = OTLPSpanExporter()
        if self.exporter.export(spans) is not SpanExportResult.SUCCESS:
            self.stop("they were refused")

    def stop(self, why):
        """Sends no more, as each try may take ten seconds."""
        self.is_broken = True
        print(f"spans are not sent to {self.endpoint} ({why}): is it up, and may the session reach it? They are kept in the run's spans.jsonl", file=sys.stderr, flush=True)


def as_text(span):
    """A span in one line; of one that is too long its attributes are left out."""
    import json

    try:
        value = json.loads(span.to_json(indent=None))
        text = json.dumps(value)
        if len(text) > LONGEST:
            text = json.dumps({**value, "attributes": {"left_out": f"{len(text)} characters"}, "events": []})
        return text
    except Exception:  # noqa: BLE001
        return None


def checked_spans(spans):
    """The spans that a process tells, as far as they are texts of one line."""
    from .stream import is_text

    spans = spans if isinstance(spans, list) else []
    return [span for span in spans[:MOST] if is_text(span, LONGEST + 1000) and "\n" not in span]
