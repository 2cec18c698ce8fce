"""Runs one suite of eclipse/paho.mqtt.testing: interop.py MODULE HOST PORT.

Prints a line "RESULT name ok|FAIL|ERROR" for each test. Works in the folder
interoperability of the suite. SLUICE_INTEROP_RUN, a regular expression,
chooses tests.
"""
import importlib
import os
import re
import sys
import unittest

sys.path.insert(0, os.getcwd())
suite = importlib.import_module(sys.argv[1])
# What the module sets when it is run as a program.
suite.host, suite.port = sys.argv[2], int(sys.argv[3])
suite.topics = ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")
suite.wildtopics = ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")
suite.nosubscribe_topics = ("test/nosubscribe",)
suite.topic_prefix = "client_test5/"


class Result(unittest.TextTestResult):
    def tell(self, test, how):
        print("RESULT", test.id().split(".")[-1], how, flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.tell(test, "ok")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell(test, "FAIL")

    def addError(self, test, err):
        super().addError(test, err)
        self.tell(test, "ERROR")


def chosen(tests):
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test)
        elif re.search(os.environ.get("SLUICE_INTEROP_RUN", ""), test.id()):
            yield test


loaded = unittest.defaultTestLoader.loadTestsFromModule(suite)
runner = unittest.TextTestRunner(resultclass=Result, verbosity=0)
sys.exit(not runner.run(unittest.TestSuite(chosen(loaded))).wasSuccessful())
