"""What the tests of serving share: a small exported model, and test doubles of TensorFlow Serving on loopback.

The doubles speak the server's protocols as its documentation and its sources describe them, and compute with the
SavedModel in this process.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

import kxai
from kxai.backend.loaded import load_signatures

SIDE = 6
CLASSES = 4
LABEL = "stable"
METHODS = {"gradient": "gradient", "gradient_x_input": "gradient_x_input"}


def image_model():
    keras.utils.set_random_seed(3)
    layers = [
        keras.Input((SIDE, SIDE, 1), name="image"),
        keras.layers.Conv2D(5, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(CLASSES, name="logits", bias_initializer="random_normal"),
    ]
    return keras.Sequential(layers, name="digits")


def images(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, SIDE, SIDE, 1)).astype(np.float32)


class Exported(tf.Module):
    """A model and two of its methods, in the form that ``kxai.export`` writes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    @tf.function(input_signature=[tf.TensorSpec((None, SIDE, SIDE, 1), tf.float32, "image")])
    def predict(self, image):
        return {"logits": self.model(image, training=False)}

    def explained(self, image, target, times_input):
        with tf.GradientTape() as tape:
            tape.watch(image)
            logits = self.model(image, training=False)
            target = tf.where(target < 0, tf.argmax(logits, axis=1, output_type=tf.int32), target)
            score = tf.gather(logits, target, batch_dims=1)
        relevance = tape.gradient(score, image) * (image if times_input else 1.0)
        residual = score - tf.reduce_sum(relevance, axis=(1, 2, 3))
        outputs = {"logits": logits, "relevance": relevance, "target": target, "score": score, "residual": residual}
        return {name: tf.identity(value) for name, value in outputs.items()}

    def signatures(self):
        specs = [*self.predict.input_signature, tf.TensorSpec((None,), tf.int32, "target")]
        made = {"serving_default": self.predict.get_concrete_function()}
        for times_input, name in enumerate(METHODS):
            function = tf.function(lambda image, target, t=bool(times_input): self.explained(image, target, t))
            made[f"explain_{name}"] = function.get_concrete_function(*specs)
        return {**made, "explain": made["explain_gradient"], "echo": self.echo.get_concrete_function()}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def echo(self, image_bytes):
        return {"same_bytes": image_bytes, "length": tf.strings.length(image_bytes)}


def export(model, folder):
    module = Exported(model)
    tf.saved_model.save(module, str(folder / "1"), signatures=module.signatures())
    return folder


def live(model, method):
    return kxai.create_analyzer(METHODS[method], model)


class RestHandler(BaseHTTPRequestHandler):
    """The test double of the REST interface."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        name, _, rest = self.path.removeprefix("/v1/models/").partition("/")
        if name != "digits" or rest.startswith("versions/7"):
            return self.reply(404, {"error": f"Could not find any versions of model {name}"})
        if rest.endswith("metadata"):
            if rest.startswith("labels") and rest != f"labels/{LABEL}/metadata":
                return self.reply(400, {"error": f"Unrecognized servable version label: {rest}"})
            listed = {key: signature_json(f) for key, f in self.server.functions.items()}
            spec = {"name": name, "signature_name": "", "version": "1"}
            return self.reply(200, {"model_spec": spec, "metadata": {"signature_def": {"signature_def": listed}}})
        status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return self.reply(200, {"model_version_status": [status]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers), body))
        self.server.may_answer.wait()
        if self.server.drop:  # ends the connection without a reply, as an idle one that timed out
            self.server.drop -= 1
            self.close_connection = True
            return None
        asked = self.path.partition(":")[0].removesuffix("/versions/1").removesuffix(f"/labels/{LABEL}")
        if asked != "/v1/models/digits":
            return self.reply(404, {"error": f"Servable not found for request: {self.path}"})
        try:
            answer = 200, self.predicted(json.loads(body))
        except Exception as error:
            answer = 400, {"error": str(error)}
        with contextlib.suppress(BrokenPipeError):  # clients may have given up
            return self.reply(*answer)

    def predicted(self, request):
        function = self.server.functions[request["signature_name"]]
        if "instances" in request:
            given = {key: [row[key] for row in request["instances"]] for key in function.inputs}
        else:
            given = request["inputs"]
        arrays = {key: read(given[key], dtype) for key, (dtype, _) in function.inputs.items()}
        self.server.sizes.append(len(next(iter(arrays.values()))))
        outputs = {key: written(array, key) for key, array in function(arrays).items()}
        alone = next(iter(outputs.values())) if len(outputs) == 1 else None
        if "instances" in request:
            rows = alone or [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
            return {"predictions": rows}
        return {"outputs": alone or outputs}

    def reply(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def read(values, dtype):
    if dtype == "string":
        return np.array([base64.b64decode(value["b64"]) for value in values], object)
    return np.array(values, dtype)


def written(array, name):
    if array.dtype != object:
        return array.tolist()
    return [{"b64": base64.b64encode(v).decode()} if name.endswith("_bytes") else v.decode() for v in array]


def signature_json(function):
    def tensors(specs):
        return {
            name: {
                "dtype": types_pb2.DataType.Name(tf.as_dtype(dtype).as_datatype_enum),
                "tensor_shape": {
                    "dim": [{"size": str(-1 if size is None else size), "name": ""} for size in shape],
                    "unknown_rank": False,
                },
                "name": f"{name}:0",
            }
            for name, (dtype, shape) in specs.items()
        }

    method = "tensorflow/serving/predict"
    return {"inputs": tensors(function.inputs), "outputs": tensors(function.outputs), "method_name": method}


@contextlib.contextmanager
def quiet_port():
    """A port at which nobody listens, kept from all who ask for any port; servers may take it by its number."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


@contextlib.contextmanager
def rest_server(folder):
    """The test double of the REST interface, listening."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), RestHandler)
    server.daemon_threads = True
    server.functions = load_signatures(str(folder / "1"))
    server.seen, server.sizes, server.may_answer, server.drop = [], [], threading.Event(), 0
    server.may_answer.set()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def grpc_server(folder):
    """The test double of the gRPC interface, by the servicers of tensorflow-serving-api; yields it, with its port."""
    import grpc
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    functions = load_signatures(str(folder / "1"))

    class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
        seen, may_answer, content = [], threading.Event(), True

        def Predict(self, request, context):  # noqa: N802
            self.seen.append((request, dict(context.invocation_metadata())))
            self.may_answer.wait()
            spec = request.model_spec
            if spec.name != "digits" or spec.version.value not in (0, 1):
                context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {spec.name}")
            self.check_label(spec, context)
            if spec.signature_name not in functions:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f'signature "{spec.signature_name}" is not there')
            function = functions[spec.signature_name]
            outputs = function({name: tf.make_ndarray(request.inputs[name]) for name in function.inputs})
            reply = predict_pb2.PredictResponse()
            for name, array in outputs.items():
                reply.outputs[name].CopyFrom(self.tensor(array))
            return reply

        def check_label(self, spec, context):
            if spec.version_label not in ("", LABEL):
                told = f"Unrecognized servable version label: {spec.version_label}"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, told)

        def tensor(self, array):
            # Servers fill either the field of the type, value by value, or the content.
            return tf.make_tensor_proto(array if self.content or array.dtype == object else array.tolist(), array.dtype)

        def GetModelMetadata(self, request, context):  # noqa: N802
            self.check_label(request.model_spec, context)
            reply = get_model_metadata_pb2.GetModelMetadataResponse()
            listed = get_model_metadata_pb2.SignatureDefMap()
            for name, function in functions.items():
                for kind in ("inputs", "outputs"):
                    for key, (dtype, shape) in getattr(function, kind).items():
                        info = getattr(listed.signature_def[name], kind)[key]
                        info.dtype = tf.as_dtype(dtype).as_datatype_enum
                        info.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
            reply.metadata["signature_def"].Pack(listed)
            return reply

    class Models(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):  # noqa: N802
            if request.model_spec.name != "digits" or request.model_spec.version.value not in (0, 1):
                context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
            status = get_model_status_pb2.ModelVersionStatus(version=1, state="AVAILABLE")
            return get_model_status_pb2.GetModelStatusResponse(model_version_status=[status])

    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    servicer = Predictions()
    servicer.may_answer.set()
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    servicer.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield servicer
    finally:
        servicer.may_answer.set()
        server.stop(0).wait()
