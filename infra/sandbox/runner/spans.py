"""The spans that promptflow's tracing makes of a run: kept with the run, and sent if a variable
says where they go.

They are sent when a line has ended, without a thread: a process that has one cannot be forked.
"""

import functools
import os
import sys

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SWITCH = "PF_DISABLE_TRACING"
# The most spans of a run that are kept, and the most characters of one and of all. A span takes a
# third of a millisecond of the processor, so a run of many short lines has none of its later lines.
MOST, LONGEST, MOST_TEXT = 1_000, 20_000, 16 << 20
# How many spans are sent at once.
BATCH = 500


def begin(run):
    """Has promptflow's tracing make spans; None if the run's variables switch it off."""
    if os.environ.get(SWITCH, "").lower() == "true":
        return None
    return Spans(run, next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None))


@functools.cache
def default_resource():
    """The description that OpenTelemetry's SDK gives of itself: it looks through all installed
    packages for it, which takes milliseconds."""
    from opentelemetry.sdk.resources import Resource

    return Resource.create()


def resource(attributes):
    """The description of their process in spans, as `Resource.create` makes it."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    if os.environ.get("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"):
        return Resource.create(attributes)
    return default_resource().merge(OTELResourceDetector().detect()).merge(Resource(attributes))


def rehearse():
    """Makes a span that nobody gets, so that no run has to load what makes one."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(resource=resource({})).get_tracer("rehearsal")
    with tracer.start_as_current_span("rehearsal") as span:
        pass
    as_text(span)


class Spans:
    def __init__(self, run, endpoint):
        """`endpoint`: where they are sent, if they are."""
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from promptflow.contracts.run_mode import RunMode
        from promptflow.tracing._operation_context import OperationContext

        take = self.take_in

        class Keep(SpanProcessor):
            def on_end(self, span):
                take(span)

        self.ended, self.unsent, self.left_out = [], [], 0
        self.endpoint, self.exporter, self.is_broken, self.keeps = endpoint, None, False, True
        # Without it promptflow makes none.
        self.has_switched = SWITCH not in os.environ
        os.environ.setdefault(SWITCH, "false")
        # A span then has the number of its line.
        OperationContext.get_instance().run_mode = RunMode.Batch.name
        about = resource({"service.name": os.environ.get("OTEL_SERVICE_NAME") or "promptflow", "run": run})
        provider = trace.get_tracer_provider()
        if isinstance(provider, TracerProvider):
            # It can be set once, and the runtime or the flow has. Its tracers have the processors
            # that come to it later, too.
            provider._resource = provider.resource.merge(about)
        else:
            provider = TracerProvider(resource=about)
            trace.set_tracer_provider(provider)
        provider.add_span_processor(Keep())

    def take_in(self, span):
        """Takes a span that has ended."""
        if self.keeps and len(self.ended) < MOST:
            self.ended.append(span)
        elif self.keeps:
            self.left_out += 1
        if self.endpoint and not self.is_broken:
            self.unsent.append(span)
            if len(self.unsent) >= BATCH:
                self.send()

    def take(self):
        """Sends the spans that have ended since. Returns them as JSON texts, as OpenTelemetry's SDK
        writes them, and how many more there were."""
        spans, left_out = self.ended[:], self.left_out
        self.ended.clear()
        self.left_out = 0
        self.send()
        texts = [text for text in map(as_text, spans) if text]
        return texts, left_out + len(spans) - len(texts)

    def keep_no_more(self):
        """Makes no more spans, as the run has as many as are kept; those that are sent are made all
        the same."""
        self.keeps = False
        if self.has_switched and not self.endpoint:
            os.environ.pop(SWITCH, None)
            self.has_switched = False

    def send(self):
        spans, self.unsent = self.unsent, []
        if not spans or self.is_broken:
            return
        try:
            self.export(spans)
        except Exception as error:  # noqa: BLE001
            self.stop(type(error).__name__)

    def export(self, spans):
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
    """A span in one line. Of one that is long, texts are cut; of one that is too long its
    attributes are left out; each with a word on that."""
    import json

    from .records import LONGEST as LONGEST_TEXT
    from .records import shorten

    try:
        text = span.to_json(indent=None)
        if len(text) <= LONGEST_TEXT:
            return text
        value = shorten(json.loads(text))
        short = json.dumps(value)
        if len(short) > LONGEST:
            short = json.dumps({**value, "attributes": {"left_out": f"{len(text)} characters"}, "events": []})
        return short if len(short) <= LONGEST else None
    except Exception:  # noqa: BLE001
        return None


def checked_spans(answer):
    """The spans that a process tells, as far as they are texts of one line, and how many it left
    out."""
    from .stream import is_text

    spans, left_out = answer.get("spans"), answer.get("spans_left_out")
    spans = spans if isinstance(spans, list) else []
    left_out = left_out if isinstance(left_out, int) and left_out > 0 else 0
    return [span for span in spans[:MOST] if is_text(span, LONGEST) and "\n" not in span], left_out


class Bound:
    """The kept spans of a run: those of its first lines, as long as there is room."""

    def __init__(self):
        self.spans, self.text, self.left_out, self.lines = MOST, MOST_TEXT, 0, 0

    def is_full(self):
        return self.spans <= 0 or self.text <= 0

    def take(self, spans, left_out):
        """Those of a line's spans for which there is room."""
        kept = []
        for span in spans:
            if self.is_full():
                break
            self.spans -= 1
            self.text -= len(span)
            kept.append(span)
        self.left_out += left_out + len(spans) - len(kept)
        return kept

    def last(self):
        """The last line of a file of spans that is not whole: how many spans are left out, and how
        many lines have none."""
        if not (self.left_out or self.lines):
            return None
        return {"left_out": {"spans": self.left_out, "lines": self.lines}}
