"""The command line: parse, call one public function, print. No logic lives here."""
